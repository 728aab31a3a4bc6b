"""A model: weights, and how to run them. Independent of steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from penstock.engine_info import EngineInfo, info_of, model_engines
from penstock.redaction import shown_url
from penstock.spec.base import Spec
from penstock.spec.engines import AUTO, engine_of_ref, option_problems, remote_engine
from penstock.spec.fields import (
    CountOrAuto,
    OptionalCount,
    OptionalName,
    OptionalPath,
    OptionalSeconds,
    OptionalText,
    Options,
    Share,
    Text,
    one_of,
)
from penstock.spec.frozen import FrozenDict
from penstock.spec.problems import InvalidSpec, Problem, shown

__all__ = ["Model"]

DTYPES = ("auto", "bfloat16", "float16", "float32")
LOCAL = ("/", "./", "../", "~")  # how a reference begins that is a folder, and so has no revision


def _base_url(value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    urls = (value,) if isinstance(value, str) else value
    if not isinstance(urls, (list, tuple)) or not urls:
        raise ValueError(f"expected a URL or a list of URLs, got {_shown(value)}")
    for url in urls:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url.split()) != 1:
            raise ValueError(f"expected a URL such as http://localhost:8000/v1, got {_shown(url)}")
    return urls[0] if len(urls) == 1 else tuple(urls)


def _shown(value: object) -> str:
    """What stands in the place of a URL may be one with a key in it, whatever else is wrong with it."""
    return shown(_without_keys(value))


def _without_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_keys(item) for item in value]
    return shown_url(value) if isinstance(value, str) else value


class Model(Spec):
    """Weights and how to run them.

    ref                 a hub id (`owner/name`, optionally `@revision`), a local folder, `mock:NAME`, or with `engine:
                        openai` the server's name for the model
    engine              auto | mock | transformers | vllm | sentence-transformers | openai
    replicas            number of replicas; auto: as many as fit on the free devices
    tensor_parallel     devices that one layer is split over
    pipeline_parallel   stages that the layers are split into
    max_model_len       longest prompt plus output, in tokens
    dtype               auto (the model's own) | bfloat16 | float16 | float32
    quantization        a quantization method of the engine; None: that of the weights
    engine_options      passed to the engine unchanged
    base_url            one or several OpenAI-compatible endpoints
    python              another interpreter, with the same version of Penstock, to run the engine in
    pool                a name that keeps the replicas separate from those of equal models
    progress_timeout_s  a replica without progress for this long is restarted; None: from measured times
    task                generate | embed
    goal                auto | throughput | latency: objective when a model is split over devices; auto: throughput
    weight              share of the devices relative to other models
    load                auto | eager | lazy: lazy: loaded at the first request; auto: lazy after a filter
    name                label in Python; in a file, the key
    """

    ref: Text = Field(kw_only=False)
    engine: Annotated[str, one_of(AUTO, *(info.name for info in model_engines()))] = AUTO
    revision: OptionalText = None
    task: Annotated[Literal["generate", "embed"], one_of("generate", "embed")] = "generate"
    replicas: CountOrAuto = "auto"
    tensor_parallel: CountOrAuto = "auto"
    pipeline_parallel: CountOrAuto = "auto"
    max_model_len: CountOrAuto = "auto"
    dtype: Annotated[str, one_of(*DTYPES)] = "auto"
    quantization: OptionalText = None
    engine_options: Options = Field(default_factory=FrozenDict)
    base_url: Annotated[str | tuple[str, ...] | None, PlainValidator(_base_url)] = None
    python: OptionalPath = None
    pool: OptionalName = None
    progress_timeout_s: OptionalSeconds = None
    batch_size: OptionalCount = None
    goal: Annotated[Literal["auto", "throughput", "latency"], one_of("auto", "throughput", "latency")] = "auto"
    weight: Share = 1.0
    load: Annotated[Literal["auto", "eager", "lazy"], one_of("auto", "eager", "lazy")] = "auto"
    name: OptionalName = None

    if not TYPE_CHECKING:  # checkers take the signature from the fields

        def __init__(self, *ref: str, **options: Any) -> None:
            if len(ref) > 1 or (ref and "ref" in options):
                raise InvalidSpec(
                    "Model", [Problem(("ref",), "expected one reference; pass everything else by keyword")]
                )
            super().__init__(**({"ref": ref[0]} if ref else {}), **options)

    @model_validator(mode="before")
    @classmethod
    def _split_revision(cls, values: Any) -> Any:
        ref = values.get("ref")
        if isinstance(ref, str) and ref.startswith("@") is False and _has_revision(values):
            name, _, revision = ref.partition("@")
            if values.get("revision") not in (None, revision):
                raise ValueError(f"two revisions: {revision!r} in ref and {values['revision']!r} in revision")
            return {**values, "ref": name, "revision": revision}
        return values

    @model_validator(mode="after")
    def _agrees(self) -> Model:
        problems = list(_problems(self))
        if problems:
            raise InvalidSpec("Model", problems)
        return self

    @property
    def resolved_engine(self) -> str:
        """The engine as far as the model itself tells it: `auto` stays auto where only what is installed decides."""
        named = engine_of_ref(self.ref)
        if named is not None:
            return named.name
        return remote_engine().name if self.base_url is not None else self.engine

    @property
    def base_urls(self) -> tuple[str, ...]:
        """`base_url` as a tuple, empty where there is none."""
        if self.base_url is None:
            return ()
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    @property
    def label(self) -> str:
        """Its display name: `name`, else the last part of its reference in lower case."""
        return self.name or _own_name(self.ref).rstrip("/").rpartition("/")[2].lower() or "model"


def _has_revision(values: dict[str, Any]) -> bool:
    ref = values["ref"]
    if values.get("engine") == remote_engine().name or values.get("base_url") is not None:
        return False  # a server's model names are its own
    return "@" in ref and not ref.startswith(LOCAL) and engine_of_ref(ref) is None and ref.rpartition("@")[2] != ""


def _own_name(ref: str) -> str:
    """A reference without the prefix of its engine."""
    named = engine_of_ref(ref)
    return ref if named is None else ref.removeprefix(named.ref_prefix)


def _problems(model: Model) -> Iterator[Problem]:
    named, remote = engine_of_ref(model.ref), remote_engine()
    asked = None if model.engine == AUTO else info_of(model.engine)
    if named is not None and asked not in (None, named):
        yield Problem(("engine",), f"'engine': {model.ref} runs on the {named.name} engine, not on {model.engine}")
    if asked is not None and asked.ref_prefix and asked != named:
        expected = f"{asked.ref_prefix}NAME"
        yield Problem(("ref",), f"'ref': the {asked.name} engine takes {expected}, got {shown(model.ref)}")
    if named is not None and model.ref == named.ref_prefix:
        yield Problem(("ref",), f"'ref': expected {named.ref_prefix}NAME, got no name")
    if asked == remote and model.base_url is None:
        yield Problem((), f"engine {remote.name} needs 'base_url', for instance http://localhost:8000/v1")
    other = named or asked
    if model.base_url is not None and other is not None and other != remote:
        yield Problem(("base_url",), f"'base_url': is an option of engine {remote.name}, not of {other.name}")
    yield from _task_problems(model, asked)
    if named is not None:
        yield from option_problems(named, model.engine_options)


def _task_problems(model: Model, asked: EngineInfo | None) -> Iterator[Problem]:
    if asked is None or model.task in asked.tasks:
        return
    if model.task == "embed":
        able = [info for info in model_engines() if "embed" in info.tasks and info.devices]
        names = " or ".join(info.name for info in sorted(able, key=lambda info: -info.preference))
        yield Problem(("task",), f"'task': engine {asked.name} does not support task embed; use {names}")
    else:
        yield Problem(("task",), f"'task': engine {asked.name} supports only embed; set task: embed")

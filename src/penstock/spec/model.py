"""A model: weights, and how to run them. An object of its own, outside any step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from penstock.redaction import shown_url
from penstock.spec.base import Spec
from penstock.spec.engines import EMBEDDING_ENGINES, ENGINES, MOCK_OPTIONS, MOCK_PREFIX, mock_problems
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

__all__ = ["MOCK_OPTIONS", "Model"]

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

    ref                 a hub id (`owner/name`, perhaps `@revision`), a local folder, `mock:NAME`, or with `engine:
                        openai` the name that the server gives the model
    engine              auto | mock | transformers | vllm | sentence-transformers | openai
    replicas            how many copies; auto: as many as the free devices hold
    tensor_parallel     devices that one layer is split over
    pipeline_parallel   stages that the layers are split into
    max_model_len       longest prompt plus output, in tokens
    dtype               auto (the model's own) | bfloat16 | float16 | float32
    quantization        a scheme of the engine, or None: what the model's files say
    engine_options      passed to the engine as they are
    base_url            one or several OpenAI-compatible endpoints
    python              another interpreter, with the same Penstock, to run the engine under
    pool                keeps the replicas apart from those of equal models under another pool name
    progress_timeout_s  a replica that gets nowhere for so long is restarted; None: from measured times
    task                generate | embed
    goal                auto | throughput | latency: what a plan divides the model for; auto: throughput
    weight              share of the devices beside other models
    load                auto | eager | lazy: lazy replicas start with their first request; auto: lazy behind a filter
    name                label in Python; in a file the key says it
    """

    ref: Text = Field(kw_only=False)
    engine: Annotated[str, one_of("auto", *ENGINES)] = "auto"
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
                raise InvalidSpec("Model", [Problem(("ref",), "expected one reference; all else goes by name")])
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
        if self.ref.startswith(MOCK_PREFIX):
            return "mock"
        if self.base_url is not None:
            return "openai"
        return self.engine

    @property
    def base_urls(self) -> tuple[str, ...]:
        """`base_url` as a tuple, empty where there is none."""
        if self.base_url is None:
            return ()
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    @property
    def label(self) -> str:
        """What to call it where nobody said: its name, else the last part of its reference in lower case."""
        return self.name or self.ref.removeprefix(MOCK_PREFIX).rstrip("/").rpartition("/")[2].lower() or "model"


def _has_revision(values: dict[str, Any]) -> bool:
    ref = values["ref"]
    if values.get("engine") == "openai" or values.get("base_url") is not None:
        return False  # a server's model names are its own
    return "@" in ref and not ref.startswith((*LOCAL, MOCK_PREFIX)) and ref.rpartition("@")[2] != ""


def _problems(model: Model) -> Iterator[Problem]:
    is_mock = model.ref.startswith(MOCK_PREFIX)
    if is_mock and model.engine not in ("auto", "mock"):
        yield Problem(("engine",), f"'engine': {model.ref} runs on the mock engine, not on {model.engine}")
    if model.engine == "mock" and not is_mock:
        yield Problem(("ref",), f"'ref': the mock engine takes mock:NAME, got {shown(model.ref)}")
    if model.ref == MOCK_PREFIX:
        yield Problem(("ref",), "'ref': expected mock:NAME, got no name")
    if model.engine == "openai" and model.base_url is None:
        yield Problem((), "engine openai needs 'base_url', for instance http://localhost:8000/v1")
    if model.base_url is not None and (is_mock or model.engine not in ("auto", "openai")):
        named = "mock" if is_mock else model.engine
        yield Problem(("base_url",), f"'base_url': goes with engine openai, not with {named}")
    if model.task == "embed" and model.engine not in ("auto", *EMBEDDING_ENGINES):
        yield Problem(("task",), f"'task': engine {model.engine} does not embed; use sentence-transformers or vllm")
    if model.task == "generate" and model.engine == "sentence-transformers":
        yield Problem(("task",), "'task': engine sentence-transformers embeds; say task: embed")
    if is_mock:
        yield from mock_problems(model.engine_options)

"""The steps of a pipeline: what each does to a row, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, model_validator

from penstock.spec.base import Part, Spec
from penstock.spec.fields import CountOrAuto, Flag, Name, Names, OptionalCount, OptionalName, Seconds, one_of
from penstock.spec.functions import FunctionRef, OptionalFunction
from penstock.spec.problems import KeyPath, shown
from penstock.spec.sampling import OUTPUTS_RULE, SAMPLING_RULES, sampled
from penstock.spec.templates import (
    expression_problem,
    is_template,
    template_problem,
    undeclared,
    undeclared_in_expression,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
FUNCTION_TIMEOUT_S = 60.0  # of one call: long for a function over one row, short for a night's run
SOURCE = "source"  # what `from` says of a branch that begins at the source


def _template(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a template, got {shown(value)}")
    problem = template_problem(value)
    if problem:
        raise ValueError(problem)
    return value


def _required_template(value: Any) -> str:
    return _template(value if value is not None else "")  # type: ignore[return-value]


def _expression(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected an expression over the row, got {shown(value)}")
    problem = expression_problem(value)
    if problem:
        raise ValueError(problem)
    return value


def _step_name(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or any(mark.isspace() or mark in "./:" for mark in value):
        raise ValueError(f"expected a name without spaces, dots, slashes or colons, got {shown(value)}")
    if value == SOURCE:
        raise ValueError(f"'{SOURCE}' is reserved for the source; choose another name for the step")
    return value


Template = Annotated[str, PlainValidator(_required_template)]
OptionalTemplate = Annotated[str | None, PlainValidator(_template)]
OptionalExpression = Annotated[str | None, PlainValidator(_expression)]


class Message(Part):
    """One message of a conversation; `content` is a template over the row."""

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool"], one_of(*ROLES)]
    content: Template


Used = Iterator[tuple[KeyPath, frozenset[str]]]  # (key path within the step, columns that it names)


class Step(Spec):
    """What all steps share.

    name        unique in the pipeline; None: the kind, then kind-2, ...
    from_       the step that the rows come from (`from` in a file); None: the step before
    batch_size  accepted as a hint; it never changes how busy a replica is

    Of a kind of step:

    kind      its key in a pipeline file
    task      the task that its `model` has to have; None: it has no model
    filters   it may end rows without an output row
    expands   it replaces a row by several
    rewrites  it may give a column that a step above it has made a new value
    """

    kind: ClassVar[str]
    task: ClassVar[str | None] = None
    filters: ClassVar[bool] = False
    expands: ClassVar[bool] = False
    rewrites: ClassVar[bool] = False
    name: Annotated[str | None, PlainValidator(_step_name)] = None
    from_: OptionalName = Field(default=None, alias="from")
    batch_size: OptionalCount = None

    def added_columns(self) -> Mapping[str, str] | None:
        """The columns that the step adds, in order, each with the key that names it; None if they depend on
        the results of a function."""
        return {}

    def used_columns(self) -> Used:
        """Everything in the step that reads columns by name."""
        return iter(())

    def asks(self) -> frozenset[str]:
        """What it asks of its model's engine: kinds of payload and options, as the engines' records name them."""
        return frozenset()

    @property
    def model_name(self) -> str | None:
        """The name of its model, in the pipeline's models; None: it has none."""
        return getattr(self, "model", None) if self.task is not None else None

    def follows(self) -> tuple[tuple[str, str | None], ...]:
        """The steps that its rows come from: (key, name)."""
        return (("from", self.from_),)


class Generate(Step):
    """Texts from a model. Adds `output`; with `meta` also `<output>_meta`, with `logprobs` also `<output>_logprobs`.

    model    a name in the pipeline's models
    prompt   a template over the row; or `messages`, a list of role and content
    n        number of outputs; with more than 1 the output column is a list
    The sampling fields are literals or templates whose rendered text is parsed as the field's type; None leaves the
    choice to the model's generation config.
    """

    kind: ClassVar[str] = "generate"
    task: ClassVar[str | None] = "generate"
    parts: ClassVar[dict[str, type[Part]]] = {"messages": Message}
    model: Name
    prompt: OptionalTemplate = None
    messages: tuple[Message, ...] | None = None
    output: Name
    n: Annotated[int, PlainValidator(OUTPUTS_RULE.check)] = 1
    meta: Flag = False
    max_tokens: Annotated[int | str | None, sampled("max_tokens")] = None
    min_tokens: Annotated[int | str | None, sampled("min_tokens")] = None
    temperature: Annotated[float | str | None, sampled("temperature")] = None
    top_p: Annotated[float | str | None, sampled("top_p")] = None
    top_k: Annotated[int | str | None, sampled("top_k")] = None
    min_p: Annotated[float | str | None, sampled("min_p")] = None
    presence_penalty: Annotated[float | str | None, sampled("presence_penalty")] = None
    frequency_penalty: Annotated[float | str | None, sampled("frequency_penalty")] = None
    repetition_penalty: Annotated[float | str | None, sampled("repetition_penalty")] = None
    stop: Annotated[str | tuple[str, ...] | None, sampled("stop")] = None
    seed: Annotated[int | str | None, sampled("seed")] = None
    logprobs: Annotated[int | str | None, sampled("logprobs")] = None
    ignore_eos: Annotated[bool | str, sampled("ignore_eos")] = False

    @model_validator(mode="after")
    def _agrees(self) -> Generate:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("generate takes exactly one of 'prompt' and 'messages'")
        if self.messages == ():
            raise ValueError("'messages': expected at least one message")
        least, most = self.min_tokens, self.max_tokens
        if isinstance(least, int) and isinstance(most, int) and least > most:
            raise ValueError(f"'min_tokens' is {least}, above 'max_tokens' {most}")
        return self

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The sampling fields that were given: name -> literal, or template (str; a literal `stop` is a tuple)."""
        given = {name: getattr(self, name) for name in SAMPLING_RULES}
        return MappingProxyType({name: value for name, value in given.items() if value is not None})

    def asks(self) -> frozenset[str]:
        return frozenset({"sampling", "text" if self.messages is None else "messages"})

    def added_columns(self) -> Mapping[str, str]:
        meta = {f"{self.output}_meta": "meta"} if self.meta else {}
        logprobs = {f"{self.output}_logprobs": "logprobs"} if self.logprobs is not None else {}
        return {self.output: "output", **meta, **logprobs}

    def used_columns(self) -> Used:
        if self.prompt is not None:
            yield ("prompt",), undeclared(self.prompt)
        for index, message in enumerate(self.messages or ()):
            yield ("messages", index, "content"), undeclared(message.content)
        for name, value in self.sampling.items():
            if isinstance(value, str) and is_template(value):
                yield (name,), undeclared(value)


class PythonStep(Step):
    """Base of the steps with a Python function.

    version    identity of the function for a resume; default: a hash of its code
    timeout_s  limit of one call
    workers    number of processes; auto: from the free cores
    """

    function: OptionalFunction = None
    timeout_s: Seconds = FUNCTION_TIMEOUT_S
    workers: CountOrAuto = "auto"

    @model_validator(mode="before")
    @classmethod
    def _fold_version(cls, values: Any) -> Any:
        if "version" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "version"}
        version, function = values["version"], values.get("function")
        if version is None:
            return rest
        if isinstance(version, bool) or not isinstance(version, (str, int)) or version == "":
            raise ValueError(f"'version': expected text or a whole number, got {shown(version)}")
        if function is None:
            raise ValueError("'version' requires 'function'")
        return {**rest, "function": _versioned(function, str(version))}

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        return (*super().key_names(), "version")


def _versioned(function: Any, version: str) -> Any:
    if isinstance(function, FunctionRef):
        return FunctionRef(function.name, version, None, function.callable)
    if isinstance(function, str):
        return FunctionRef(function, version) if ":" in function else function
    return FunctionRef.of(function, version) if callable(function) else function


class Map(PythonStep):
    """A Python function from a row to a dict of columns, which is merged into the row.

    columns  the names that it adds; when given, templates of later steps are checked against them
    """

    kind: ClassVar[str] = "map"
    rewrites: ClassVar[bool] = True
    columns: Names = None

    @model_validator(mode="after")
    def _agrees(self) -> Map:
        if self.function is None:
            raise ValueError("map needs 'function'")
        return self

    def added_columns(self) -> Mapping[str, str] | None:
        return None if self.columns is None else dict.fromkeys(self.columns, "columns")


class Filter(PythonStep):
    """Keeps the rows for which `expr` (a jinja expression over the row) or `function` is true."""

    kind: ClassVar[str] = "filter"
    filters: ClassVar[bool] = True
    expr: OptionalExpression = None

    @model_validator(mode="after")
    def _agrees(self) -> Filter:
        if (self.expr is None) == (self.function is None):
            raise ValueError("filter takes exactly one of 'expr' and 'function'")
        return self

    def used_columns(self) -> Used:
        if self.expr is not None:
            yield ("expr",), undeclared_in_expression(self.expr)


class Expand(PythonStep):
    """One row to several: a function that returns a list of dicts, each merged into the row; or a list column.

    column   names a column with a list; each element becomes a row, with all columns and the element as `output`
    output   with `column`: the element's column, `<column>_item` when not given
    columns  with `function`: the names that it adds
    """

    kind: ClassVar[str] = "expand"
    expands: ClassVar[bool] = True
    column: OptionalName = None
    output: OptionalName = None
    columns: Names = None

    @model_validator(mode="before")
    @classmethod
    def _default_output(cls, values: Any) -> Any:
        column = values.get("column")
        if isinstance(column, str) and values.get("output") is None:
            return {**values, "output": f"{column}_item"}
        return values

    @model_validator(mode="after")
    def _agrees(self) -> Expand:
        if (self.function is None) == (self.column is None):
            raise ValueError("expand takes exactly one of 'function' and 'column'")
        if self.function is not None and self.output is not None:
            raise ValueError("'output' requires 'column'; a function names its own columns")
        if self.column is not None and self.columns is not None:
            raise ValueError("'columns' requires 'function'")
        if self.column is not None and self.output == self.column:
            raise ValueError(f"'output': the list column {self.column!r} is kept; choose another name")
        return self

    def added_columns(self) -> Mapping[str, str] | None:
        if self.column is not None:
            return {str(self.output): "output"}
        return None if self.columns is None else dict.fromkeys(self.columns, "columns")

    def used_columns(self) -> Used:
        if self.column is not None:
            yield ("column",), frozenset({self.column})


class Embed(Step):
    """A vector from an embedding model for `text`, a template over the row."""

    kind: ClassVar[str] = "embed"
    task: ClassVar[str | None] = "embed"
    model: Name
    text: Template
    output: Name

    def added_columns(self) -> Mapping[str, str]:
        return {self.output: "output"}

    def used_columns(self) -> Used:
        yield ("text",), undeclared(self.text)


class Join(Step):
    """Merges two branches: rows that passed both `from` and `with`, with the columns of both."""

    kind: ClassVar[str] = "join"
    with_: Name = Field(alias="with")

    def follows(self) -> tuple[tuple[str, str | None], ...]:
        return (("from", self.from_), ("with", self.with_))


STEP_KINDS: dict[str, type[Step]] = {kind.kind: kind for kind in (Generate, Map, Filter, Expand, Embed, Join)}
LATER_KINDS = ("score", "select")  # of the design, not of this version

"""A pipeline: source, steps, models, sink. Frozen, validated as a whole, equal from YAML and from Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, PrivateAttr, model_validator

from penstock.errors import UsageError
from penstock.formats import READ_FORMATS, WRITTEN_FORMATS
from penstock.spec.base import Part, Spec
from penstock.spec.branches import branch_problems
from penstock.spec.fields import (
    ColumnTypes,
    FilePath,
    FilePaths,
    Natural,
    OptionalCount,
    OptionalSize,
    RowList,
    Seconds,
    is_number,
    is_whole,
    one_of,
)
from penstock.spec.frozen import FrozenDict
from penstock.spec.graph import StepNode, named, nodes, shape_problems
from penstock.spec.model import Model
from penstock.spec.outputs import collision_problems
from penstock.spec.problems import InvalidSpec, KeyPath, dotted, shown
from penstock.spec.steps import Step

MAX_DEAD = 0.05  # of the source rows
COMMIT_EVERY_S = 10.0  # of work at risk


class Source(Spec):
    """The input: files (a path, a glob, a folder, or a list of them), or rows given in Python.

    paths         key `path` in a file; relative to the working directory
    rows          a list of dicts
    column_types  key `schema`: column name to type name; None: inferred from the first 1,000 rows
    """

    paths: FilePaths = Field(default=(), alias="path")
    rows: RowList = None
    format: Annotated[str, one_of("auto", *READ_FORMATS)] = "auto"
    batch_size: OptionalCount = None
    column_types: ColumnTypes = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _agrees(self) -> Source:
        if bool(self.paths) == (self.rows is not None):
            raise ValueError("source takes exactly one of 'path' and 'rows'")
        return self


class Sink(Spec):
    """The output. path: the folder of the run; order: input (source order) or completion."""

    path: FilePath
    format: Annotated[str, one_of(*WRITTEN_FORMATS)] = "parquet"
    order: Annotated[Literal["input", "completion"], one_of("input", "completion")] = "input"
    batch_size: OptionalCount = None


class Reserve(Part):
    """Devices to keep free: `per_node` on each node."""

    per_node: Natural = 0


LOAD_STRATEGIES = ("auto", "together", "phases")


class Resources(Spec):
    """How several models share the devices.

    load_strategy     auto: all at once if they fit together, otherwise in phases | together | phases
    device_memory_gb  limit on the memory used per device (on the CPU: per NUMA node); GB is 10^9 bytes
    """

    parts: ClassVar[dict[str, type[Part]]] = {"reserve": Reserve}
    gpu_allocation_strategy: Annotated[Literal["even", "priority"], one_of("even", "priority")] = "even"
    reserve: Reserve = Field(default_factory=Reserve)
    load_strategy: Annotated[Literal["auto", "together", "phases"], one_of(*LOAD_STRATEGIES)] = "auto"
    device_memory_gb: OptionalSize = None


class Window(Spec):
    """Limits on unfinished rows in memory. None: the default of the runtime."""

    rows: OptionalCount = None
    bytes: OptionalCount = None


def _max_dead(value: Any) -> int | float:
    if is_whole(value) and value >= 0:
        return int(value)
    if is_number(value) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"expected a count of rows (0, 1, 2, ...) or a fraction from 0.0 to 1.0, got {shown(value)}")


def _whole_seed(value: Any) -> int | None:
    if value is None:
        return None
    if is_whole(value) and -(2**63) <= value < 2**63:
        return int(value)
    raise ValueError(f"expected a whole number of 64 bits, got {shown(value)}")


def _models(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping of names to models, got {shown(value)}")
    for name, model in value.items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"expected names as keys, got {shown(name)}")
        if not isinstance(model, Model):
            raise ValueError(f"expected a Model for '{name}', got {shown(model)}")
    return FrozenDict({name: model.model_copy(update={"name": None}) for name, model in value.items()})


def _steps(value: Any) -> tuple[Step, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list of steps, got {shown(value)}")
    for step in value:
        if not isinstance(step, Step):
            raise ValueError(f"expected steps such as Generate(...), got {shown(step)}")
    return named(value)


def expect_pipeline(value: object, where: str) -> Pipeline:
    """`value`, if it is a Pipeline. Raises UsageError."""
    if isinstance(value, Pipeline):
        return value
    raise UsageError(f"expected a Pipeline, got {type(value).__name__}; Rows have to_pipeline()", where=where)


class Pipeline(Spec):
    """A whole pipeline.

    models          name -> model; the names are those that steps use
    steps           in order; each with its name and `from_`
    max_dead        limit for dead source rows: a count (int) or a fraction (float)
    commit_every_s  commit interval in seconds: the most work that a crash can lose
    window          limits on unfinished rows in memory, or None
    seed            request seeds are derived from it if the step sets none; None: requests have no seed
    """

    source: Source
    steps: Annotated[tuple[Step, ...], PlainValidator(_steps)]
    sink: Sink
    models: Annotated[dict[str, Model], PlainValidator(_models)] = Field(default_factory=FrozenDict)
    max_dead: Annotated[int | float, PlainValidator(_max_dead)] = MAX_DEAD
    commit_every_s: Seconds = COMMIT_EVERY_S
    resources: Resources = Field(default_factory=Resources)
    window: Window | None = None
    seed: Annotated[int | None, PlainValidator(_whole_seed)] = None
    _places: Mapping[KeyPath, str] = PrivateAttr(default_factory=dict)  # path of keys -> FILE:LINE

    @model_validator(mode="after")
    def _agrees(self) -> Pipeline:
        problems = [*shape_problems(self.steps, self.models)]
        problems = problems or [*collision_problems(self.order()), *branch_problems(self.order())]
        if problems:
            raise InvalidSpec("Pipeline", problems)
        return self

    def order(self) -> tuple[StepNode, ...]:
        """The steps in topological order (their order in the file), with what each follows."""
        return nodes(self.steps)

    def place(self, path: KeyPath) -> str:
        """Where a key was written: FILE:LINE, or the path of keys for a pipeline made in Python."""
        return place_of(self._places, path) or dotted(("Pipeline", *path))

    def placed(self, places: Mapping[KeyPath, str]) -> Pipeline:
        """The same pipeline, knowing where its keys were written."""
        made = self.model_copy()
        made._places = dict(places)
        return made

    # Where something was written is no part of what it says.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((self.source.paths, self.steps, self.sink))


def place_of(places: Mapping[KeyPath, str], path: KeyPath) -> str | None:
    """The place of the longest known beginning of `path`."""
    for length in range(len(path), -1, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None

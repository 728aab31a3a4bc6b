"""The Python API of pipelines: an immutable description, extended by one step per call.

Reusing a `Rows` makes a branch; `join` merges two. Nothing is read before `run()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

from penstock.errors import UsageError
from penstock.spec.functions import NAME, FunctionRef
from penstock.spec.graph import default_names
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline, Sink, Source
from penstock.spec.problems import shown, suggestion
from penstock.spec.sampling import SamplingOptions
from penstock.spec.steps import FUNCTION_TIMEOUT_S, SOURCE, Embed, Expand, Filter, Generate, Join, Map, Step

if TYPE_CHECKING:
    from penstock.runtime.run.api import RunOptions, RunResult

Function = Callable[..., Any] | FunctionRef | str  # text: "module:function"
Condition = Function  # or text of any other form: an expression over the row
PathLike = str | os.PathLike[str]
PIPELINE_SETTINGS = ("max_dead", "commit_every_s", "resources", "window", "seed")


def read(
    source: PathLike | Sequence[PathLike] | Sequence[Mapping[str, Any]],
    *,
    format: str = "auto",
    schema: Mapping[str, str] | None = None,
    batch_size: int | None = None,
) -> Rows:
    """Rows from a file, a glob, a folder, a list of them, or a list of dicts. Nothing is opened yet."""
    options: dict[str, Any] = {"format": format, "schema": schema, "batch_size": batch_size}
    is_rows = isinstance(source, (list, tuple)) and (not source or isinstance(source[0], Mapping))
    options["rows" if is_rows else "path"] = source
    return Rows(Source(**options))


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows after a chain of steps. Created by `read`."""

    source: Source
    step: Step | None = None
    before: Rows | None = None
    joined: Rows | None = None
    model: Model | None = None
    sink: Sink | None = None

    def generate(
        self,
        model: Model,
        *,
        prompt: str | None = None,
        messages: Sequence[Mapping[str, str]] | None = None,
        output: str,
        n: int = 1,
        meta: bool = False,
        name: str | None = None,
        batch_size: int | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Rows:
        """One request per row to `model`; adds the column `output`. Exactly one of `prompt` and `messages`, both
        templates over the row; sampling fields are values or templates."""
        options: dict[str, Any] = {**sampling, "messages": messages, "name": name, "batch_size": batch_size}
        step = Generate(model=_checked(model).label, prompt=prompt, output=output, n=n, meta=meta, **options)
        return self.then(step, model=model)

    def map(
        self,
        function: Function,
        *,
        columns: Sequence[str] | None = None,
        timeout_s: float = FUNCTION_TIMEOUT_S,
        workers: int | Literal["auto"] = "auto",
        version: str | None = None,
        name: str | None = None,
        batch_size: int | None = None,
    ) -> Rows:
        """`function(row)` returns a dict of columns, which is merged into the row. `columns`: the added names."""
        options: dict[str, Any] = {"timeout_s": timeout_s, "workers": workers, "version": version}
        return self.then(Map(function=function, columns=columns, name=name, batch_size=batch_size, **options))  # type: ignore[arg-type]

    def filter(
        self,
        condition: Condition,
        *,
        timeout_s: float = FUNCTION_TIMEOUT_S,
        workers: int | Literal["auto"] = "auto",
        version: str | None = None,
        name: str | None = None,
        batch_size: int | None = None,
    ) -> Rows:
        """Keeps the rows for which `condition` is true: an expression over the row (a string), a function of the row,
        or a string "module:function"."""
        options: dict[str, Any] = {"timeout_s": timeout_s, "workers": workers, "version": version}
        is_expression = isinstance(condition, str) and not NAME.fullmatch(condition)
        key = "expr" if is_expression else "function"
        options |= {key: condition, "name": name, "batch_size": batch_size}
        return self.then(Filter(**options))

    def expand(
        self,
        function: Function | None = None,
        *,
        column: str | None = None,
        output: str | None = None,
        columns: Sequence[str] | None = None,
        timeout_s: float = FUNCTION_TIMEOUT_S,
        workers: int | Literal["auto"] = "auto",
        version: str | None = None,
        name: str | None = None,
        batch_size: int | None = None,
    ) -> Rows:
        """One row to several: `function(row)` returns a list of dicts, each merged into the row; or each element of
        the list in `column` becomes the column `output` of its own row."""
        options: dict[str, Any] = {"timeout_s": timeout_s, "workers": workers, "version": version}
        options |= {"function": function, "columns": columns, "batch_size": batch_size}
        return self.then(Expand(column=column, output=output, name=name, **options))

    def embed(
        self, model: Model, *, text: str, output: str, name: str | None = None, batch_size: int | None = None
    ) -> Rows:
        """A vector for `text`, a template over the row, in the column `output`."""
        return self.then(
            Embed(model=_checked(model).label, text=text, output=output, name=name, batch_size=batch_size), model
        )

    def join(self, other: Rows, *, name: str | None = None) -> Rows:
        """Rows that passed both branches, with the columns of both. `other` must come from the same `read`."""
        if not isinstance(other, Rows):
            raise UsageError(f"join takes Rows, got {shown(other)}", where="Rows.join")
        if other.source is not self.source:
            raise UsageError("join takes two branches of the same read(...)", where="Rows.join")
        options: dict[str, Any] = {"name": name, "with": SOURCE}
        return replace(self.then(Join(**options)), joined=other)

    def write(
        self,
        path: PathLike,
        *,
        format: str = "parquet",
        order: Literal["input", "completion"] = "input",
    ) -> Rows:
        """Set the output folder. Must be last."""
        return replace(self, sink=Sink(path=os.fspath(path), format=format, order=order))

    def to_pipeline(self, **settings: Any) -> Pipeline:
        """The Pipeline, equal to that of the corresponding YAML file. `settings`: max_dead, commit_every_s, resources,
        window, seed. Raises ConfigError."""
        if self.sink is None:
            raise UsageError("no output path; end with write(PATH) or run(out=PATH)", where="Rows")
        chain = self._chain()
        names = default_names([(rows.step.kind, rows.step.name) for rows in chain if rows.step is not None])
        name_of = {id(rows): name for rows, name in zip(chain, names, strict=True)}
        models = _Labels()
        steps = [_linked(rows, name_of, models) for rows in chain]
        return Pipeline(source=self.source, steps=tuple(steps), sink=self.sink, models=models.made, **settings)

    def run(self, **options: Any) -> RunResult:
        """Run the pipeline, or resume its run; blocks until it has ended. `options` are those of RunOptions (out,
        limit, executor, takeover, display) and of `to_pipeline`."""
        from penstock.runtime.run.api import run

        return run(*self._prepared(options))

    def retry(self, codes: Collection[str] = (), **options: Any) -> RunResult:
        """Retry the dead rows of the finished run of this pipeline: all, or those with one of `codes`. Rows that
        succeed are inserted into the output. `options` as for `run`. Raises UsageError if the run has not finished."""
        from penstock.runtime.retry.retry import retry

        pipeline, chosen = self._prepared(options)
        return retry(pipeline, chosen, codes)

    def _prepared(self, options: dict[str, Any]) -> tuple[Pipeline, RunOptions]:
        from dataclasses import fields

        from penstock.runtime.run.api import RunOptions

        known = [field.name for field in fields(RunOptions)]
        for name in options:
            if name not in known and name not in PIPELINE_SETTINGS:
                raise UsageError(
                    f"unknown option '{name}'{suggestion(name, [*known, *PIPELINE_SETTINGS])}", where="Rows.run"
                )
        settings = {name: value for name, value in options.items() if name in PIPELINE_SETTINGS}
        rest = {name: value for name, value in options.items() if name not in PIPELINE_SETTINGS}
        rows = self if self.sink or not rest.get("out") else self.write(rest["out"])
        return rows.to_pipeline(**settings), RunOptions(**rest)

    def then(self, step: Step, model: Model | None = None) -> Rows:
        """Append any step. `model`: the Model that `step.model` names."""
        if self.sink is not None:
            raise UsageError(f"write(...) comes last; put {step.kind}(...) before it", where="Rows")
        return Rows(self.source, step, self, None, model)

    def _chain(self) -> list[Rows]:
        """All steps that lead here, in topological order."""
        ordered: list[Rows] = []
        seen: set[int] = set()
        waiting: list[tuple[Rows, bool]] = [(self, False)]
        while waiting:
            rows, is_open = waiting.pop()
            if is_open:
                ordered.append(rows)
            elif id(rows) not in seen and rows.step is not None:
                seen.add(id(rows))
                waiting.append((rows, True))
                waiting += [(other, False) for other in (rows.joined, rows.before) if other is not None]
        return ordered


class _Labels:
    """Names for models: equal models share one."""

    def __init__(self) -> None:
        self.made: dict[str, Model] = {}

    def label(self, model: Model) -> str:
        name, number = model.label, 1
        while name in self.made and self.made[name] != model:
            if model.name is not None:
                raise UsageError(f"two different models are named '{model.name}'; give one another name", where="Model")
            number += 1
            name = f"{model.label}-{number}"
        self.made[name] = model
        return name


def _checked(model: Model) -> Model:
    if isinstance(model, Model):
        return model
    raise UsageError(f"expected a Model, got {shown(model)}; write Model({shown(model)})", where="Rows")


def _linked(rows: Rows, name_of: Mapping[int, str], models: _Labels) -> Step:
    """The step with the names of its model and of the steps before it."""
    assert rows.step is not None and rows.before is not None
    changes: dict[str, Any] = {"name": name_of[id(rows)], "from_": name_of.get(id(rows.before), SOURCE)}
    if rows.joined is not None:
        changes["with_"] = name_of.get(id(rows.joined), SOURCE)
    if rows.model is not None:
        changes["model"] = models.label(rows.model)
    return rows.step.model_copy(update=changes)

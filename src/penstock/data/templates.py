"""Templates over a row: prompts, messages, and the expressions of filters.

A template that is only text and plain `{{ column }}` is joined from its pieces, with the result that jinja would
give; all others go through jinja. In a template null counts as missing, so that no prompt ever says "None"; in an
expression null is a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes

from penstock.data.base import Row
from penstock.data.limits import MAX_RENDERED_CHARS
from penstock.data.sizes import shown_names
from penstock.errors import ConfigError
from penstock.protocol.arrays import Array
from penstock.spec.template_meter import ITEM_BYTES, METER, shown_bytes
from penstock.spec.templates import (
    compile_expression,
    compile_template,
    environment,
    template_problem,
    undeclared,
    undeclared_in_expression,
)

_NAMES_OF_JINJA = frozenset({"self", "super", "caller", "varargs", "kwargs", "loop"})


class TemplateFailure(Exception):
    """This row can't be rendered. `code`: template_missing_field, template_error or bad_sampling."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Template:
    """One template. Raises ConfigError when it is not valid."""

    def __init__(self, text: str) -> None:
        problem = template_problem(text)
        if problem:
            raise ConfigError(problem)
        self.text = text
        pieces = _plain_pieces(text)
        self._pieces: list[str] = []
        self._slots: list[tuple[int, str]] = []
        self._compiled: jinja2.Template | None = None
        if pieces is None:
            self._compiled = compile_template(text, _refuse_null)
            self._names = undeclared(text)
            return
        for index, (is_name, piece) in enumerate(pieces):
            self._pieces.append("" if is_name else piece)
            if is_name:
                self._slots.append((index, piece))

    def render(self, row: Row) -> str:
        """The text for this row. Raises TemplateFailure."""
        if self._compiled is not None:
            return _rendered(self._compiled, _with_lists(row, self._names))
        pieces = self._pieces.copy()
        for index, name in self._slots:
            value = row.get(name)
            if type(value) is not str:
                value = _as_text(value, name, row)
            pieces[index] = value
        if sum(map(len, pieces)) > MAX_RENDERED_CHARS:
            _refuse_length()
        return "".join(pieces)


def _plain_pieces(text: str) -> list[tuple[bool, str]] | None:
    """(is a column name, text or name) of a template without logic; None where it has any."""
    pieces: list[tuple[bool, str]] = []
    for output in environment().parse(text).body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                pieces.append((False, node.data))
            elif isinstance(node, nodes.Name) and node.name not in environment().globals | dict.fromkeys(
                _NAMES_OF_JINJA
            ):
                pieces.append((True, node.name))
            else:
                return None
    return pieces


def _with_lists(row: Row, names: Iterable[str]) -> Row:
    """The row with lists in place of the arrays among the columns `names`: what jinja knows."""
    arrays = [name for name in names if type(row.get(name)) is Array]
    return {**row, **{name: row[name].tolist() for name in arrays}} if arrays else row


def _as_text(value: Any, name: str, row: Row) -> str:
    if value is None:
        raise TemplateFailure("template_missing_field", _missing(name, row))
    try:
        return str(value)
    except Exception as error:
        raise TemplateFailure("template_error", f"column {name!r} can't be converted to text: {error}") from None


def _missing(name: str, row: Row) -> str:
    present = shown_names([key for key, value in row.items() if value is not None])
    problem = f"column {name!r} is null" if name in row else f"no column {name!r}"
    return f"{problem}; the row has {present or 'no values'}"


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise TemplateFailure("template_missing_field", "an expression in the template is null for this row")
    METER.take(ITEM_BYTES if type(value) is str else shown_bytes(value))
    return value


def _refuse_length() -> NoReturn:
    raise TemplateFailure("template_error", f"the rendered text is over the limit of {MAX_RENDERED_CHARS} characters")


def _rendered(template: jinja2.Template, row: Row) -> str:
    """Through jinja, piece by piece, so that a template without end stops at the limit."""
    values = {name: value for name, value in row.items() if value is not None}
    pieces: list[str] = []
    length = 0
    METER.begin()
    try:
        for piece in template.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_RENDERED_CHARS:
                _refuse_length()
    except TemplateFailure:
        raise
    except jinja2.UndefinedError as error:
        raise TemplateFailure("template_missing_field", _undefined(error, row)) from None
    except Exception as error:
        raise TemplateFailure("template_error", f"{type(error).__name__}: {error}") from None
    return "".join(pieces)


def _undefined(error: jinja2.UndefinedError, row: Row) -> str:
    words = str(error)
    name = words[1:].partition("'")[0]
    if words.endswith("' is undefined"):
        return _missing(name, row)
    return f"{words}; the row has {shown_names(row)}"


class Conversation:
    """A conversation of templates: a list of {role, content}."""

    def __init__(self, messages: Sequence[Mapping[str, str]]) -> None:
        self._messages = [(message["role"], Template(message["content"])) for message in messages]

    def render(self, row: Row) -> list[dict[str, str]]:
        """The conversation for this row. Raises TemplateFailure."""
        return [{"role": role, "content": content.render(row)} for role, content in self._messages]


class Expression:
    """A jinja expression over the row, true or false. Raises ConfigError when it is not valid."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._evaluate = compile_expression(text)
        self._names = sorted(undeclared_in_expression(text))

    def holds(self, row: Row) -> bool:
        """Whether it is true for this row. Raises TemplateFailure."""
        METER.begin()
        try:
            return bool(self._evaluate(_with_lists(row, self._names)))
        except jinja2.UndefinedError as error:
            raise TemplateFailure("template_missing_field", _undefined(error, row)) from None
        except Exception as error:
            null = next((name for name in self._names if row.get(name, "") is None), None)
            if null is not None:
                raise TemplateFailure("template_missing_field", f"{_missing(null, row)}; {error}") from None
            raise TemplateFailure("template_error", f"{type(error).__name__}: {error}") from None

"""YAML text to plain data, with the place of every key. Only plain data: no tags, no objects, no endless aliases.

Scalars follow YAML 1.2: `no` and `on` are text, `1e-5` is a number, `010` is ten and `1:30` is text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from penstock.errors import ConfigError
from penstock.spec.problems import KeyPath, shown

MAX_CHARACTERS = 4 * 1024 * 1024  # of a file written by a person
MAX_VALUES = 50_000  # after aliases are followed; a bomb has billions
MAX_DEPTH = 64

TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = frozenset(
    TAG + name for name in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp")
)
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
FLOAT_NAMES = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
MAX_DIGITS = 4_000  # of an integer: Python refuses to read longer ones


class Document:
    """Plain data and, for every path of keys in it, where it was written (`FILE:LINE`)."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: Any = None
        self.places: dict[KeyPath, str] = {}
        self.errors: list[tuple[str, str]] = []
        self.refused: list[KeyPath] = []  # whose values stand as None, and are not to be complained of again

    def at(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"


def read_yaml(text: str, file: str) -> Document:
    """Parse one document. What can't be parsed at all raises ConfigError; what is wrong with single keys stands in
    `errors`, so that it is reported together with the rest."""
    document = Document(file)
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"longer than {MAX_CHARACTERS:,} characters; is this the pipeline?", where=file)
    node = _compose(text.removeprefix("\ufeff"), file)
    if node is not None:
        document.places[()] = document.at(node)
        document.data = _Walk(document).value(node, ())
    return document


def scalar_value(text: str) -> Any:
    """The value of unquoted text."""
    if text in NULLS:
        return None
    if text in BOOLS:
        return BOOLS[text]
    if len(text) <= MAX_DIGITS and INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    if FLOAT_NAMES.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _compose(text: str, file: str) -> yaml.Node | None:
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigError(_sentence(error), where=where) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character {shown(chr(error.character))} is not allowed in YAML"
        raise ConfigError(message, where=f"{file}:{line}") from None
    except RecursionError:
        raise ConfigError(f"nested deeper than {MAX_DEPTH} levels", where=file) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        where = f"{file}:{loader.line + 1}" if loader else file
        raise ConfigError(f"not valid YAML: {error}", where=where) from None


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not valid YAML"
    if "'\\t'" in problem:
        return "a tab; YAML is indented with spaces"
    if "but found another document" in problem or "expected a single document" in (error.context or ""):
        return "a second document ('---'); a pipeline file holds one"
    context = f"{error.context}: " if error.context else ""
    return f"not valid YAML: {context}{problem}"


class _Walk:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: list[yaml.Node] = []
        self._count = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._guard(node)
        self._open.append(node)
        try:
            if node.tag not in PLAIN_TAGS:
                self._document.refused.append(path)
                self._refuse(node, f"unsafe tag '{_short(node.tag)}'; a pipeline file holds plain data only")
                return None
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.pop()

    def _guard(self, node: yaml.Node) -> None:
        self._count += 1
        where = self._document.at(node)
        if any(node is outer for outer in self._open):
            raise ConfigError("an alias that contains itself", where=where)
        if self._count > MAX_VALUES:
            raise ConfigError(f"more than {MAX_VALUES:,} values once aliases are followed", where=where)
        if len(self._open) > MAX_DEPTH:
            raise ConfigError(f"nested deeper than {MAX_DEPTH} levels", where=where)

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.places[path] = self._document.at(node)
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        made: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == TAG + "merge":
                merged.append(value_node)
                continue
            key = self._key(key_node)
            if key is None:
                self._document.refused.append(path)
                continue
            if key in lines:
                self._refuse(key_node, f"duplicate key '{key}'; first used in line {lines[key]} already")
                continue
            lines[key] = key_node.start_mark.line + 1
            self._document.places[(*path, key)] = self._document.at(key_node)
            made[key] = self.value(value_node, (*path, key))
        for value_node in merged:
            self._merge(made, value_node, path)
        return made

    def _key(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode) and (node.style is not None or isinstance(self._scalar(node), str)):
            return self._text(node)
        if isinstance(node, yaml.ScalarNode):
            self._refuse(node, f"keys are names, got {shown(node.value)}; put quotes around it")
        else:
            self._refuse(node, "a list or mapping as a key; put quotes around a text that begins with '{{'")
        return None

    def _merge(self, made: dict[str, Any], node: yaml.Node, path: KeyPath) -> None:
        """`<<`: keys of other mappings, where this one has none of that name."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                self._refuse(source, "'<<' takes a mapping, for instance an alias of one")
                continue
            before = dict(self._document.places)
            for key, value in self.value(source, path).items():
                made.setdefault(key, value)
            self._document.places.update(before)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.style is not None or self._is_explicit_text(node):
            return self._text(node)
        return scalar_value(node.value)

    def _text(self, node: yaml.ScalarNode) -> str:
        """The text, with characters that were escaped as JSON does it, in two halves, put together."""
        text = str(node.value)
        if text.isascii():
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._refuse(
                node, f"{shown(text)} contains a lone surrogate (\\ud800 to \\udfff), which is not a character"
            )
            return text.encode("utf-8", "replace").decode()

    def _is_explicit_text(self, node: yaml.ScalarNode) -> bool:
        """`!!str 12`: plain, tagged as text, although it would be read as something else."""
        implicit = yaml.SafeLoader("").resolve(yaml.ScalarNode, node.value, (True, False))
        return node.tag == TAG + "str" and implicit != node.tag

    def _refuse(self, node: yaml.Node, message: str) -> None:
        self._document.errors.append((self._document.at(node), message))


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix(TAG) if tag.startswith(TAG) else tag

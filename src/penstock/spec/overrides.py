"""`--set a.b=c`: one value of a pipeline replaced from the command line, before anything is validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.errors import ConfigError
from penstock.redaction import shown_setting
from penstock.spec.graph import default_names
from penstock.spec.problems import KeyPath, dotted, suggestion
from penstock.spec.templates import is_template
from penstock.spec.yaml_text import Document, read_yaml


def apply_sets(document: Document, sets: Sequence[str]) -> None:
    """Change `document.data`, a mapping, in place and in order. Values are parsed as YAML. Raises ConfigError."""
    for setting in sets:
        key, equals, text = setting.partition("=")
        where = f"--set {shown_setting(setting)}"
        if not equals or not key.strip():
            raise ConfigError("expected KEY=VALUE, for instance steps.generate.max_tokens=64", where=where)
        _assign(document, key.strip().split("."), _value(text, where), where)


def _value(text: str, where: str) -> Any:
    if is_template(text.lstrip()[:2]):
        return text  # what YAML would take for a mapping of mappings
    try:
        parsed = read_yaml(text, where)
    except ConfigError as error:
        raise ConfigError(error.message, where=where) from None
    if parsed.errors:
        raise ConfigError(parsed.errors[0][1], where=where)
    return parsed.data


def _assign(document: Document, words: list[str], value: Any, where: str) -> None:
    container, path = document.data, KeyPath()
    while True:
        key, words = _next_key(container, words, path, where)
        path = (*path, key)
        if not words:
            break
        if isinstance(container, dict) and container.get(str(key)) is None:
            if path[0] == "models" and len(path) == 2:
                raise ConfigError(f"no model is named '{key}'{suggestion(str(key), container)}", where=where)
            container[str(key)] = {}
            document.places[path] = where
        elif isinstance(container, dict) and not isinstance(container[str(key)], (dict, list)):
            raise ConfigError(f"'{dotted(path)}' is a single value and has no keys", where=where)
        container = container[key]
    container[key] = value
    for place in [place for place in document.places if place[: len(path)] == path]:
        del document.places[place]
    document.places[path] = where


def _next_key(container: Any, words: list[str], path: KeyPath, where: str) -> tuple[str | int, list[str]]:
    """The key of `container` that the words begin with, and the words that are left."""
    if isinstance(container, dict):
        for length in range(len(words), 1, -1):  # keys may have dots in them: the longest that exists
            if ".".join(words[:length]) in container:
                return ".".join(words[:length]), words[length:]
        return words[0], words[1:]
    if not isinstance(container, list):
        raise ConfigError(f"'{dotted(path)}' is a single value and has no keys", where=where)
    if path == ("steps",):
        return _step(container, words, where)
    return _index(container, words[0], where), words[1:]


def _index(items: list[Any], word: str, where: str) -> int:
    if word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < len(items):
        return int(word)
    raise ConfigError(f"expected an index below {len(items)}, got '{word}'", where=where)


def _step(steps: list[Any], words: list[str], where: str) -> tuple[int, list[str]]:
    """A step by name or by index. Its kind, which stands between in the file, may be left out."""
    named = _names(steps)
    if words[0] in named:
        index = named[words[0]]
    elif words[0].isdecimal():
        index = _index(steps, words[0], where)
    else:
        raise ConfigError(f"no step is named '{words[0]}'{suggestion(words[0], named)}", where=where)
    rest = words[1:]
    entry = steps[index]
    if rest and isinstance(entry, dict) and len(entry) == 1:
        kind = next(iter(entry))
        rest = rest if rest[0] == kind else [kind, *rest]
    return index, rest


def _names(steps: list[Any]) -> dict[str, int]:
    """Names as the pipeline will give them -> index, for the entries that are steps at all."""
    entries = [(index, *next(iter(entry.items()))) for index, entry in enumerate(steps) if _is_step(entry)]
    given = [(kind, body.get("name") if isinstance(body, dict) else None) for _, kind, body in entries]
    names = default_names([(kind, name if isinstance(name, str) else None) for kind, name in given])
    return {name: index for name, (index, *_) in zip(names, entries, strict=True)}


def _is_step(entry: Any) -> bool:
    return isinstance(entry, dict) and len(entry) == 1

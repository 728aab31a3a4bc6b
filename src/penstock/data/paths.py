"""From `path` to the list of data files, in the order in which they are read.

A path is a file, a glob, or a folder (its own data files, sorted by name; hidden names and names that begin with an
underscore are skipped, subfolders are not searched). A list keeps its order; each glob and folder is sorted.
"""

from __future__ import annotations

import difflib
import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from penstock.errors import InputError
from penstock.formats import FORMATS, READ_FORMATS

SUFFIXES = {suffix: info.name for info in FORMATS.values() if info.reader for suffix in info.suffixes}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
TEXT_FORMATS = tuple(name for name in READ_FORMATS if FORMATS[name].is_text)
_TEXT = " ".join(suffix for suffix, name in SUFFIXES.items() if name in TEXT_FORMATS)
_TABLES = ", ".join(suffix for suffix, name in SUFFIXES.items() if name not in TEXT_FORMATS)
SUPPORTED = f"{_TEXT} (each also with .gz or .zst), {_TABLES}"


class DataFile(msgspec.Struct, frozen=True):
    """One file of a source. `name` is the path as it was written or found, with escapes for bytes that are not UTF-8:
    it stands in dead/, run.json and messages. compression is "", gzip or zstd."""

    name: str
    path: Path
    format: str
    compression: str
    size_bytes: int


def resolve(paths: Sequence[str] | str, format: str = "auto") -> list[DataFile]:
    """The files that `paths` mean. Raises InputError where one can't be found, read or understood."""
    if format != "auto" and format not in READ_FORMATS:
        raise InputError(f"unknown format {format!r}; one of: auto, {', '.join(READ_FORMATS)}")
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("the source has no files; give a path, a list of paths, a glob or a folder")
    names = [name for path in given for name in _names(os.fspath(path), format)]
    files = [_data_file(name, format) for name in names]
    first_of = {file.format: file.name for file in reversed(files)}
    if len(first_of) > 1:
        shown = ", ".join(f"{name} is {kind}" for kind, name in sorted(first_of.items()))
        raise InputError(
            f"the source mixes formats ({shown}); a source has one format: convert the files, or run them separately"
        )
    return files


def _names(path: str, format: str) -> list[str]:
    expanded = os.path.expanduser(path)
    if os.path.isdir(expanded):
        return _in_folder(expanded, format)
    if os.path.lexists(expanded) or not glob.has_magic(expanded):
        return [expanded]
    found = sorted(glob.glob(expanded, recursive=True))
    if not found:
        raise InputError(f"no file matches the pattern (relative to {os.getcwd()}); check the pattern", where=path)
    return [name for entry in found for name in (_in_folder(entry, format) if os.path.isdir(entry) else [entry])]


def _nearby(path: Path) -> str:
    """What stands where the file was looked for, as a help against slips of the pen."""
    missing = path
    while not os.path.isdir(missing.parent):
        missing = missing.parent
    if missing != path:
        return f"; there is no folder {missing}"
    try:
        names = sorted(entry for entry in os.listdir(path.parent) if classify(entry) is not None)
    except OSError:
        names = []
    stems = {name.partition(".")[0]: name for name in names}  # suffixes are alike anyway
    near = difflib.get_close_matches(path.name.partition(".")[0], stems, 1)
    if near:
        return f"; did you mean {stems[near[0]]!r}?"
    return (
        f"; the folder has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "; check the path"
    )


def _in_folder(folder: str, format: str) -> list[str]:
    try:
        entries = sorted(os.listdir(folder))
    except PermissionError:
        raise _no_permission(folder) from None
    visible = [entry for entry in entries if not entry.startswith((".", "_"))]
    names = [os.path.join(folder, entry) for entry in visible if format != "auto" or classify(entry) is not None]
    files = [name for name in names if not os.path.isdir(name)]
    if not files:
        raise InputError(_nothing_in(folder, visible), where=folder)
    return files


def _nothing_in(folder: str, visible: list[str]) -> str:
    message = f"the folder {os.path.abspath(folder)} has no data files; looked for {SUPPORTED}"
    inner = [entry for entry in visible if os.path.isdir(os.path.join(folder, entry))]
    if inner:
        shown = ", ".join(inner[:5])
        message += f"; subfolders are not searched ({shown}): give one, or use a pattern such as {folder}/**/*.jsonl"
    return message


def classify(name: str) -> tuple[str, str] | None:
    """(format, compression) by the suffixes of a file's name, or None where they are not supported."""
    stem, suffix = os.path.splitext(name.lower())
    compression = COMPRESSIONS.get(suffix, "")
    if compression:
        suffix = os.path.splitext(stem)[1]
    format = SUFFIXES.get(suffix)
    if format is None or (compression and format not in TEXT_FORMATS):
        return None
    return format, compression


def _data_file(name: str, format: str) -> DataFile:
    path = Path(name)
    status = _status(path)
    known = classify(path.name)
    if format != "auto":
        compression = COMPRESSIONS.get(path.suffix.lower(), "") if format in TEXT_FORMATS else ""
        known = (format, compression)
    if known is None:
        raise InputError(
            f"the suffix {path.suffix!r} is not supported; expected {SUPPORTED}, or set `format:` in the source",
            where=name,
        )
    shown = name.encode("utf-8", "backslashreplace").decode("utf-8")
    if shown != name and known[0] not in TEXT_FORMATS:
        raise InputError("its name is not UTF-8, and Arrow can't open it; rename the file", where=shown)
    return DataFile(shown, path, known[0], known[1], status.st_size)


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"no such file: {os.path.abspath(path)}{_nearby(path)}", where=str(path)) from None
    except PermissionError:
        raise _no_permission(str(path)) from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", where=str(path)) from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError("is not a regular file; copy its content to a file", where=str(path))
    if not os.access(path, os.R_OK):
        raise _no_permission(str(path))
    return status


def _no_permission(name: str) -> InputError:
    try:
        status = os.stat(name)
        facts = f"mode {stat.S_IMODE(status.st_mode):04o}, owner uid {status.st_uid}"
    except OSError:
        facts = "a parent folder can't be entered"
    return InputError(f"no permission to read it ({facts}; running as uid {os.geteuid()})", where=name)

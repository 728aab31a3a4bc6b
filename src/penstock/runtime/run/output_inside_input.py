"""The output of a run may not be its own input: neither now, nor when the same command comes again."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from penstock.errors import ConfigError

_WRITTEN = ("", "data", "dead", "data/part-00000.{suffix}", "dead/part-00000.parquet", "run.json", "summary.json")


def refuse_overlap(paths: Sequence[str], out_dir: Path, suffix: str) -> None:
    """Raises ConfigError where the output folder is the input, lies in it, or holds it, or where a pattern would take
    in the parts (named *.`suffix`) that the run itself writes."""
    out = Path(os.path.realpath(out_dir))
    for given in paths:
        path = os.path.expanduser(given)
        if glob.has_magic(path) and not os.path.lexists(path):
            if any(_takes_in(path, out / name.format(suffix=suffix)) for name in _WRITTEN):
                raise ConfigError(
                    f"the pattern '{given}' matches files in the output folder '{out_dir}'; "
                    "choose another output folder (--out), or a narrower pattern"
                )
        elif _overlaps(Path(os.path.realpath(path)), out):
            raise ConfigError(
                f"the output folder '{out_dir}' overlaps the input '{given}'; choose another output folder (--out)"
            )


def _overlaps(found: Path, out: Path) -> bool:
    if out == found or found in out.parents:
        return True
    return os.path.lexists(found) and out / "data" in (found, *found.parents)


def _takes_in(pattern: str, path: Path) -> bool:
    """Whether `glob(pattern, recursive=True)` would find `path`, a real path, if it existed."""
    parts = Path(os.path.abspath(pattern)).parts
    plain = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    base = Path(os.path.realpath(Path(*parts[:plain])))
    return path.is_relative_to(base) and _matches(parts[plain:], path.relative_to(base).parts)


def _matches(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    hidden = parts[0].startswith(".") and not pattern[0].startswith(".")
    if pattern[0] == "**":
        return _matches(pattern[1:], parts) or (not hidden and _matches(pattern, parts[1:]))
    return not hidden and fnmatchcase(parts[0], pattern[0]) and _matches(pattern[1:], parts[1:])

"""Reading a pipeline file from disk, with file errors reported as user errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.spec.pipeline import Pipeline

# A pipeline file is written by hand; one of this size is a data file given by mistake.
_MAX_BYTES = 4_000_000


def load(file: str, sets: Sequence[str] = ()) -> Pipeline:
    """The pipeline of a YAML file, with `a.b=c` overrides. Raises ConfigError with FILE or FILE:LINE.

    The working directory becomes importable, so that `function: "mypackage.steps:add"` finds the user's own code.
    """
    from penstock.spec.load import load_pipeline

    text = read_text(file)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return load_pipeline(text, file, sets)


def read_text(file: str, kind: str = "pipeline") -> str:
    """The text of a pipeline file, or of another `kind` of file. Raises ConfigError."""
    path = Path(file)
    try:
        if path.is_dir():
            raise ConfigError(f"is a folder; give the {kind} file itself, for instance {kind}.yaml", where=file)
        if _is_data(path) and path.exists():
            raise ConfigError(f"is a data file; expected a {kind} file (YAML){_nearby(path)}", where=file)
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise ConfigError(f"is {size:,} bytes; a {kind} file has at most {_MAX_BYTES:,}", where=file)
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"no such {kind} file{_nearby(path)}", where=file) from None
    except PermissionError:
        raise ConfigError(f"can't be read by user {os.getuid()}; change its permissions", where=file) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", where=file) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't be read: {error}", where=file) from None


def _is_data(path: Path) -> bool:
    """Whether the suffix is that of a data file. `.json` is not: JSON is YAML."""
    from penstock.data.paths import COMPRESSIONS, SUFFIXES

    return path.suffix.lower() in {*SUFFIXES, *COMPRESSIONS} - {".json"}


def _nearby(path: Path) -> str:
    """The YAML files in the folder of the path, as a suggestion."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    found = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".yaml", ".yml"))
    return f"; {folder.resolve()} has {', '.join(found[:5])}" if found else f" in {folder.resolve()}"

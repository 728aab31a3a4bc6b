"""How a run was given: its pipeline file as it was, and where. Noted in the run directory, for commands that get
nothing but that. The pipeline's identity is compared whenever it is used, so nothing rests on it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from penstock.errors import UsageError

__all__ = ["Given", "note_given", "read_given"]


class Given(msgspec.Struct, frozen=True):
    """file: the name of the pipeline file, text: what was in it, sets: `a.b=c` overrides, folder: the working directory
    that its paths are relative to."""

    file: str
    text: str
    sets: tuple[str, ...]
    folder: str


def _path(out_dir: Path) -> Path:
    return out_dir / ".penstock" / "given.json"


def note_given(out_dir: Path, given: Given | None) -> None:
    """Where it can't be written, a later command asks for the file."""
    if given is None:
        return
    path = _path(out_dir)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError, UnicodeEncodeError):  # of a folder whose name is not UTF-8
        noted = msgspec.json.encode(given)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(noted)
        temporary.rename(path)


def read_given(out_dir: Path) -> Given:
    """Raises UsageError where there is none."""
    try:
        return msgspec.json.decode(_path(out_dir).read_bytes(), type=Given)
    except (OSError, msgspec.MsgspecError):
        raise UsageError(
            "this folder does not tell which pipeline file it was made of; give it with --pipeline", where=str(out_dir)
        ) from None

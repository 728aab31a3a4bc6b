"""How a run was given: its pipeline file as it was, and where. Noted in the run directory, for commands that get
nothing but that. The pipeline's identity is compared whenever it is used, so nothing rests on it.

Keys are not kept: a file that holds one (in `base_url`, say) is left out, and has to be given again; so does a --set.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from penstock.errors import ConfigError, UsageError
from penstock.redaction import MASK, masked, shown_setting, without_secrets
from penstock.spec.yaml_text import read_yaml

__all__ = ["Given", "note_given", "read_given"]


class Given(msgspec.Struct, frozen=True):
    """file: the name of the pipeline file, text: what was in it, sets: `a.b=c` overrides, folder: the working directory
    that its paths are relative to.

    keys_in_file  the text is left out, since it holds a key
    keys_in_sets  those of `sets` that stand there without their key
    """

    file: str
    text: str
    sets: tuple[str, ...]
    folder: str
    keys_in_file: bool = False
    keys_in_sets: tuple[str, ...] = ()

    def without_keys(self) -> Given:
        """As it may be kept."""
        sets = tuple(shown_setting(setting) for setting in self.sets)
        hidden = tuple(shown for shown, setting in zip(sets, self.sets, strict=True) if shown != setting)
        in_file = _holds_keys(self.text, self.file)
        return msgspec.structs.replace(
            self, text="" if in_file else self.text, sets=sets, keys_in_file=in_file, keys_in_sets=hidden
        )

    def settings(self, out_dir: Path, sets: Sequence[str]) -> tuple[str, ...]:
        """The overrides that were given, and after them `sets`. Raises UsageError where one that held a key is not
        given again."""
        again = {setting.partition("=")[0].strip() for setting in sets}
        for shown in self.keys_in_sets:
            key = shown.partition("=")[0].strip()
            if key not in again:
                raise UsageError(
                    f"the run was started with --set {shown}, and keys are not stored in the run directory; "
                    f"pass that --set again, with the key in place of {MASK}",
                    where=str(out_dir),
                )
        return (*(setting for setting in self.sets if setting not in self.keys_in_sets), *sets)


def _holds_keys(text: str, file: str) -> bool:
    """Whether a model of the pipeline has a key in it, or a comment has one."""
    try:
        data = read_yaml(text, file).data
    except ConfigError:
        return True  # never: a run has been made of it
    models = data.get("models") if isinstance(data, dict) else None
    comments = [line.partition("#")[2] for line in text.splitlines()]
    return (
        masked(models) != models
        or _names_a_key(models)
        or any(without_secrets(comment) != comment for comment in comments)
    )


def _names_a_key(models: Any) -> bool:
    """Whether a key may stand where the name of a variable is meant."""
    options = [model.get("engine_options") for model in models.values()] if isinstance(models, dict) else []
    names: list[Any] = []
    for given in options:
        if isinstance(given, dict):
            headers = given.get("headers_env")
            names += [given.get("api_key_env"), *(headers.values() if isinstance(headers, dict) else ())]
    return any(name is not None and str(name) not in os.environ and not str(name).isupper() for name in names)


def _path(out_dir: Path) -> Path:
    return out_dir / ".penstock" / "given.json"


def note_given(out_dir: Path, given: Given | None) -> None:
    """Where it can't be written, a later command asks for the file."""
    if given is None:
        return
    path = _path(out_dir)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError, UnicodeEncodeError):  # of a folder whose name is not UTF-8
        noted = msgspec.json.encode(given.without_keys())
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(noted)
        temporary.rename(path)


def read_given(out_dir: Path) -> Given:
    """Raises UsageError where there is none, or where the file held a key."""
    try:
        given = msgspec.json.decode(_path(out_dir).read_bytes(), type=Given)
    except (OSError, msgspec.MsgspecError):
        raise UsageError(
            "the folder does not record the pipeline file of this run; pass it with --pipeline", where=str(out_dir)
        ) from None
    if given.keys_in_file:
        raise UsageError(
            f"the pipeline file of this run ({given.file}) contains a key, and is not stored in the run directory; "
            "pass it with --pipeline",
            where=str(out_dir),
        )
    return given

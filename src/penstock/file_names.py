"""Names that users chose (of models, pools, replicas) as names of files."""

from __future__ import annotations

import hashlib

__all__ = ["MOST_BYTES", "file_name"]

MOST_BYTES = 200  # of 255 that file systems take: room for an ending and for what temporary files add
_HASH_BYTES = 16
_PLAIN = frozenset("-_.")


def file_name(name: str) -> str:
    """A name of one file inside a folder, whatever `name` holds; different names give different files.

    Letters, digits, "-", "_" and "." stay, but for a dot at the beginning; all else is written as %XX of its UTF-8
    bytes. A name that is too long for a file is cut, and ends in a hash of the whole.
    """
    plain = "".join(
        character if (character.isalnum() or character in _PLAIN) and (place or character != ".") else _coded(character)
        for place, character in enumerate(name)
    )
    encoded = plain.encode()
    if 0 < len(encoded) <= MOST_BYTES:
        return plain
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
    return encoded[: MOST_BYTES - len(digest) - 1].decode("utf-8", "ignore") + "%" + digest


def _coded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))

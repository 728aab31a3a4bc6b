"""What the mock engine answers to embedding, scoring and classification: numbers from the text's hash."""

from __future__ import annotations

import hashlib
import sys
from array import array

from penstock.engines.sampling import RowFault
from penstock.protocol.arrays import Array
from penstock.protocol.messages import Request
from penstock.protocol.options import Classification, Embedding, Scoring
from penstock.protocol.payloads import Pair

__all__ = ["LABELS", "value_of"]

LABELS = 3
_SCALE = 32768.0  # of the hash's 16-bit integers


def value_of(request: Request, seed: int, dimension: int) -> Array:
    """float32: the vector of a text, the score of each text of a pair, or the scores of the labels.

    Raises RowFault("refused") for options that the mock engine does not have.
    """
    options, payload = request.options, request.payload
    if isinstance(options, Embedding) and isinstance(payload, str):
        if options.precision != "float32" or options.truncate == "chunk":
            raise RowFault("refused", "the mock engine embeds as float32, and in one piece")
        return _vector((options.prompt or "") + payload, seed, options.dimensions or dimension)
    if isinstance(options, Scoring) and isinstance(payload, Pair):
        firsts = b"".join(_vector(f"{payload.query}\n{text}", seed, 1).data for text in payload.texts)
        return Array("float32", (len(payload.texts),), firsts)
    if isinstance(options, Classification) and isinstance(payload, str):
        return _vector(payload, seed, LABELS)
    raise RowFault("refused", "embedding and classification take a text, scoring a pair")


def _vector(text: str, seed: int, dimension: int) -> Array:
    whole = array("h", hashlib.shake_256(f"{seed}/{text}".encode()).digest(2 * dimension))
    numbers = array("f", (number / _SCALE for number in whole))
    if sys.byteorder == "big":
        numbers.byteswap()
    return Array("float32", (dimension,), numbers.tobytes())

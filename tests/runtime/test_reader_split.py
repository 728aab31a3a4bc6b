"""A chunk is cut where the core has room for fewer rows than were read ahead: nothing is lost or changed by that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.data.base import Chunk, Origin, RowFamily, Unreadable
from penstock.runtime.rows.reader import NOTHING, _split


def chunk_of(kinds: list[int], *, carried: bool) -> Chunk:
    """At each position: a row (1), several (more), an unreadable one (0), or one that is passed over (-1)."""
    chunk = Chunk([], [], [], [], len(kinds), [] if carried else None)
    for position, kind in enumerate(kinds):
        if kind == 0:
            chunk.unreadable.append(Unreadable(position, "x", position, "bad_json", "", ""))
        elif kind == 1 or (kind > 1 and not carried):
            chunk.positions.append(position)
            chunk.rows.append({"n": position})
            chunk.sizes_bytes.append(position)
            if chunk.origins is not None:
                chunk.origins.append(Origin(10 * position, (), "x", position))
        elif kind > 1:
            origins = [Origin(10 * position, (child,), "x", position) for child in range(kind)]
            chunk.families.append(RowFamily(position, [{"n": position}] * kind, [1] * kind, origins))
    return chunk


@given(kinds=st.lists(st.integers(-1, 4), max_size=30), carried=st.booleans(), sizes=st.lists(st.integers(1, 9)))
def test_pieces_are_the_chunk(kinds: list[int], carried: bool, sizes: list[int]) -> None:
    whole = chunk_of(kinds, carried=carried)
    pieces, rest, at = [], whole, 0
    for most in (*sizes, 1000):
        piece, rest = _split(rest, most)
        rows = len(piece.rows) + sum(len(family.rows) for family in piece.families)
        assert rows <= most or len(piece.positions) + len(piece.families) == 1
        assert at <= piece.next_position
        at = piece.next_position
        pieces.append(piece)
        if rest is NOTHING:
            break
    assert rest is NOTHING and at == whole.next_position
    for name in ("positions", "rows", "sizes_bytes", "unreadable", "families"):
        assert [item for piece in pieces for item in getattr(piece, name)] == getattr(whole, name)
    assert [piece.origins is None for piece in pieces] == [not carried] * len(pieces)
    if carried:
        assert [origin for piece in pieces for origin in piece.origins or ()] == whole.origins

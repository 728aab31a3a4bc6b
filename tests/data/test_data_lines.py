from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.limits import INPUT_CHARS
from penstock.data.lines import LineReader, LongLine, count_records, is_blank
from penstock.data.open import open_source
from penstock.errors import InputError

CAP = 40
text = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r\n", b" \n", b"\n\n", b"x" * 39, b"y" * 40, b"z" * 41, b"w" * 200]),
        st.binary(max_size=12),
    ),
    max_size=30,
).map(b"".join)


def reader(data: bytes, block: int) -> LineReader:
    return LineReader(io.BytesIO(data), max_line_bytes=CAP, block_bytes=block)


def expected_lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def shown(line: bytes | LongLine) -> bytes | int:
    return line if isinstance(line, bytes) else line.size_bytes


@given(text, st.integers(1, 64), st.integers(1, 9))
def test_lines_are_those_of_split_whatever_the_blocks(data: bytes, block: int, take: int) -> None:
    lines = reader(data, block)
    taken: list[bytes | LongLine] = []
    while found := lines.take(take):
        taken += found
        assert lines.lines == len(taken)
        assert lines.offset == sum(map(len, taken)) + len(taken)
    expected = expected_lines(data)
    assert [shown(line) for line in taken] == [line if len(line) <= CAP else len(line) for line in expected]
    assert all(
        len(line.beginning) == min(len(line), INPUT_CHARS) or len(line.beginning) > CAP
        for line in taken
        if isinstance(line, LongLine)
    )
    if data:
        assert lines.cut_off == (not data.endswith(b"\n"))


@given(text, st.integers(1, 64), st.lists(st.integers(0, 5), max_size=6))
def test_passing_over_equals_taking(data: bytes, block: int, jumps: list[int]) -> None:
    records = [line for line in expected_lines(data) if not is_blank(line)]
    lines = reader(data, block)
    position = 0
    for jump in jumps:
        passed = lines.pass_over(jump)
        assert passed == min(jump, len(records) - position)
        position += passed
    rest: list[bytes | LongLine] = []
    while found := lines.take(3):
        rest += [line for line in found if not is_blank(line)]
    assert [shown(line) for line in rest] == [line if len(line) <= CAP else len(line) for line in records[position:]]


@given(text)
def test_counting_records_equals_looking_at_each(data: bytes) -> None:
    assert count_records(data) == sum(not is_blank(line) for line in data.split(b"\n"))


@pytest.mark.parametrize("compress", ["gz", "zst"])
def test_a_truncated_archive_gives_what_came_before_then_says_so(tmp_path: Path, compress: str) -> None:
    import gzip
    import random

    import zstandard

    words = random.Random(0)
    data = b"".join(b'{"a": %d}\n' % words.getrandbits(60) for _ in range(200_000))
    packed = gzip.compress(data, 1) if compress == "gz" else zstandard.compress(data)
    path = tmp_path / f"a.jsonl.{compress}"
    path.write_bytes(packed[: len(packed) // 2])
    source = open_source(str(path))
    position = 0
    try:
        with pytest.raises(InputError, match=r"a\.jsonl"):
            while (chunk := source.read(position, None, 1000)) is not None:
                assert chunk.next_position > position
                position = chunk.next_position
    finally:
        source.close()
    assert position > 20_000


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"a": 1}\n')
    (tmp_path / "b.jsonl.zst").write_bytes(b'{"a": 1}\n')
    for name in ("a.jsonl.gz", "b.jsonl.zst"):
        with pytest.raises(InputError, match=name):
            open_source(str(tmp_path / name))

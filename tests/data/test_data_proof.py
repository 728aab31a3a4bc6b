"""What was read is what it was: between two lives, and within one."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from data_support import read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof_support import COMPRESSED, KINDS, MORE, ROWS, lines, parquet_of

from example_counts import examples
from penstock.core.shape import SourceMark
from penstock.data.base import Source
from penstock.data.lines import LineReader
from penstock.data.open import open_source
from penstock.data.paths import DataFile
from penstock.data.proof import FileProof, ReadProof
from penstock.errors import InputError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LineReader.__init__.__kwdefaults__, "block_bytes", 1 << 16)  # type: ignore[arg-type]


def swapped(first: int, second: int) -> list[dict[str, Any]]:
    rows = list(ROWS)
    rows[first], rows[second] = rows[second], rows[first]
    return rows


def proof_of(source: Source) -> ReadProof:
    assert source.proof is not None
    return source.proof


def write(path: Path, data: bytes) -> None:
    """In place, as an editor or a copy does: the same file, other content."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()


OPENED: list[Source] = []


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def begin(paths: Sequence[Path], mark: SourceMark | None = None) -> Source:
    source = open_source([str(path) for path in paths])
    OPENED.append(source)
    proof_of(source).begin(mark or SourceMark())
    return source


def take(source: Source, rows: int, start: int = 0) -> int:
    """Read about so many rows; the position where reading goes on."""
    at = start
    while at < start + rows:
        chunk = source.read(at, None, min(50, start + rows - at))
        if chunk is None:
            break
        at = chunk.next_position
    return at


@pytest.mark.parametrize("kind", [*KINDS, *COMPRESSED])
@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(st.integers(0, 200), min_size=1, max_size=3), share=st.floats(0, 1), again=st.floats(0, 1))
def test_a_later_life_reads_on_and_comes_to_the_same_mark(
    tmp_path: Path, kind: str, parts: list[int], share: float, again: float
) -> None:
    make = {**KINDS, **COMPRESSED}[kind]
    paths, rows = [], ROWS[: sum(parts)]
    for number, count in enumerate(parts):
        begins = sum(parts[:number])
        paths.append(tmp_path / f"{number}.{kind}")
        write(paths[-1], make(rows[begins : begins + count]) if count else b"")
    undisturbed = begin(paths)
    assert read_all(undisturbed).values == rows
    at = take(first := begin(paths), int(share * len(rows)))
    mark = proof_of(first).mark(at)
    first.close()
    assert mark is not None and mark.position == at
    behind = int(again * at)  # the watermark may lie anywhere before
    second = begin(paths, mark)
    assert read_all(second, start=behind).values == rows[behind:]
    assert proof_of(second).mark(len(rows)) == proof_of(undisturbed).mark(len(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_changed_places_between_two_lives_are_refused(tmp_path: Path, kind: str) -> None:
    """Behind the first 64 KiB too, with size and times as they were."""
    path = tmp_path / f"rows.{kind}"
    write(path, KINDS[kind](ROWS))
    at = take(source := begin([path]), 300)
    mark = proof_of(source).mark(at)
    source.close()
    status, identity = path.stat(), source.identity()
    write(path, KINDS[kind](swapped(250, 1190)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    if kind not in ("jsonl", "csv"):
        assert open_source([str(path)]).identity()["files"][0]["size_bytes"] == identity["files"][0]["size_bytes"]
    with pytest.raises(InputError, match=rf"rows\.{kind}: its content has changed since this run read it"):
        begin([path], mark)
    write(path, KINDS[kind](ROWS))
    assert read_all(begin([path], mark), start=at).values == ROWS[at:]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_read_yet_may_change_between_two_lives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    write(path, KINDS[kind](ROWS))
    at = take(source := begin([path]), 60)
    mark = proof_of(source).mark(at)
    source.close()
    write(path, KINDS[kind](swapped(700, 1190)))
    if kind == "parquet":  # its footer tells of what was not read, and is read first
        with pytest.raises(InputError, match="its content has changed"):
            begin([path], mark)
    else:
        assert read_all(begin([path], mark), start=at).values == swapped(700, 1190)[at:]


def test_the_file_that_was_changed_last_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for number, path in enumerate(paths):
        write(path, lines(ROWS[200 * number : 200 * number + 200]))
        os.utime(path, (1_000_000, 1_000_000))
    at = take(source := begin(paths), 500)
    mark = proof_of(source).mark(at)
    source.close()
    write(paths[1], lines(swapped(210, 220)[200:400]))
    with pytest.raises(InputError, match=r"1\.jsonl: the content of a file that was read, probably this one, has"):
        begin(paths, mark)


# ---------------------------------------------------------------- within a life


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_change_places_while_they_are_read_are_refused(tmp_path: Path, kind: str) -> None:
    """One is read twice then, and one never."""
    path = tmp_path / f"rows.{kind}"
    write(path, KINDS[kind](ROWS))
    source = begin([path])
    at = take(source, 200)
    write(path, KINDS[kind](swapped(10, 1190)))
    with pytest.raises(InputError, match=r"changed during the run, including content that was already read"):
        read_all(source, start=at)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_change_places_before_they_are_read_a_second_time_are_refused(tmp_path: Path, kind: str) -> None:
    """A later life reads what lies between its watermark and the mark again; that was compared when it began."""
    path = tmp_path / f"rows.{kind}"
    write(path, KINDS[kind](ROWS))
    at = take(source := begin([path]), 900)
    mark = proof_of(source).mark(at)
    source.close()
    source = begin([path], mark)
    at = take(source, 10, start=200)
    write(path, KINDS[kind](swapped(10, 800)))
    with pytest.raises(InputError, match="changed during the run"):
        take(source, 690, start=at)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_rows_that_change_places_between_files_are_refused(tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / f"{number}.{kind}" for number in range(2)]

    def write_both(rows: list[dict[str, Any]]) -> None:
        write(paths[0], KINDS[kind](rows[:300]))
        write(paths[1], KINDS[kind](rows[300:]))

    write_both(ROWS)
    source = begin(paths)
    at = take(source, 300)
    at = take(source, 1, at) if kind == "parquet" else at
    write_both(swapped(10, 1190))
    with pytest.raises(InputError, match="changed during the run"):
        read_all(source, start=at)


@pytest.mark.parametrize("kind", [*KINDS, *COMPRESSED])
@pytest.mark.parametrize("left", [0.0, 0.4, 0.9])
def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path, kind: str, left: float) -> None:
    path = tmp_path / f"rows.{kind}"
    write(path, {**KINDS, **COMPRESSED}[kind](ROWS))
    source = begin([path])
    at = take(source, 60)
    os.truncate(path, int(left * path.stat().st_size))
    with pytest.raises(InputError, match=rf"rows\.{kind}.*shrank during the run: \d+ bytes"):
        read_all(source, start=at)


def test_a_change_of_what_was_read_alone_does_not_matter(tmp_path: Path) -> None:
    """Nothing can have moved to where it would be read again; files that are done may be removed, say."""
    paths = [tmp_path / f"{number}.jsonl" for number in range(2)]
    write(paths[0], lines(ROWS[:300]))
    write(paths[1], lines(ROWS[300:]))
    source = begin(paths)
    at = take(source, 301)
    paths[0].unlink()
    assert read_all(source, start=at).values == ROWS[at:]


def test_a_touch_and_another_file_of_that_name_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, lines(ROWS))
    source = begin([path])
    at = take(source, 100)
    os.utime(path)
    path.chmod(0o600)
    (tmp_path / "other").write_bytes(lines(swapped(1, 1199)))
    os.replace(tmp_path / "other", path)
    assert read_all(source, start=at).values == ROWS[at:]


def test_lines_that_are_appended_are_not_part_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, lines(ROWS))
    source = begin([path])
    at = take(source, 100)
    with path.open("ab") as file:
        file.write(lines(ROWS))
    found = read_all(source, start=at)
    assert found.values == ROWS[at:] and found.end == len(ROWS)


@pytest.mark.parametrize("how", ["in its place", "by a rename"])
@pytest.mark.parametrize("kind", [*KINDS, *COMPRESSED])
def test_another_file_that_comes_before_it_is_read_is_refused(tmp_path: Path, kind: str, how: str) -> None:
    """It was read up to the size of the one before, or its rows were given the positions of the next file's."""
    make, paths = {**KINDS, **COMPRESSED}[kind], [tmp_path / f"{number}.{kind}" for number in range(3)]
    for number, path in enumerate(paths):
        write(path, make(MORE[number * 300 : number * 300 + 300]))
    source = begin(paths)
    at = take(source, 60)
    if how == "by a rename":
        write(tmp_path / "other", make(MORE[2000:2500]))
        os.replace(tmp_path / "other", paths[1])
    else:
        write(paths[1], make(MORE[2000:2500]))
    with pytest.raises(InputError, match=rf"1\.{kind}: was replaced or rewritten after the run started"):
        read_all(source, start=at)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_lines_put_in_before_the_end_are_refused(tmp_path: Path, kind: str) -> None:
    """The last rows would be cut off at the old size, one of them in its midst."""
    path = tmp_path / f"rows.{kind}"
    write(path, KINDS[kind](ROWS))
    source = begin([path])
    at = take(source, 100)
    write(path, KINDS[kind]([*ROWS[:1000], MORE[2000], *ROWS[1000:]]))
    with pytest.raises(InputError, match="was replaced or rewritten after the run started"):
        read_all(source, start=at)


def test_a_table_of_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    """Where neither size, beginning nor end tells: rows of two files would have the same positions."""
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for path in paths:
        write(path, parquet_of(ROWS[:300]))
    source = begin(paths)
    write(paths[0], parquet_of(ROWS[:250]))
    proof = proof_of(source)
    proof._files[0] = msgspec.structs.replace(proof._files[0], size_bytes=paths[0].stat().st_size)  # type: ignore[index]
    proof.note_ends()
    with pytest.raises(InputError, match=r"0\.parquet: has 250 rows; it had 300 when the run started"):
        read_all(source)


def test_text_is_read_from_the_file_that_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another has its name just then."""
    path = tmp_path / "rows.jsonl"
    write(path, lines(ROWS[:300]))
    write(tmp_path / "other", lines(MORE[2000:2300]))
    source, check = begin([path]), FileProof.check

    def replaced(proof: FileProof) -> None:
        check(proof)
        if (tmp_path / "other").exists():
            os.replace(tmp_path / "other", path)

    monkeypatch.setattr(FileProof, "check", replaced)
    assert read_all(source).values == ROWS[:300]


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("kind", COMPRESSED)
def test_an_archive_that_broke_off_is_continued_when_it_is_whole(tmp_path: Path, kind: str) -> None:
    path, whole = tmp_path / f"rows.{kind}", COMPRESSED[kind](MORE)
    write(path, whole[: len(whole) // 2])
    broken = begin([path])
    known, at = broken.identity(), 0
    with pytest.raises(InputError, match="ends early"):
        while (chunk := broken.read(at, None, 20)) is not None:
            at = chunk.next_position
    mark = proof_of(broken).mark(at)
    broken.close()
    write(path, whole)
    source = begin([path], mark)
    assert source.identity() != known and source.identity(known) == known
    assert read_all(source, start=at).values == MORE[at:]


def test_what_is_longer_and_begins_otherwise_is_another_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    write(path, gzip.compress(lines(ROWS), mtime=0))
    known = open_source([str(path)]).identity()
    write(path, gzip.compress(lines(MORE[::-1]), mtime=0))
    assert open_source([str(path)]).identity(known) != known
    write(path.with_suffix(""), lines(ROWS))
    known = open_source([str(path.with_suffix(""))]).identity()
    write(path.with_suffix(""), lines(MORE))
    longer = open_source([str(path.with_suffix(""))])
    assert longer.identity(known) != known, "text that grew is not what it was"


def test_a_read_that_fails_leaves_the_evidence_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(path, parquet_of(ROWS))
    file = DataFile(str(path), path, "parquet", "", path.stat().st_size)
    failing = [True]

    def content(name: str, first: int, end: int | None) -> Any:
        yield b"half"
        if failing[0]:
            raise OSError(5, "Input/output error")
        yield b"of it"

    proof, right = ReadProof([file], content), ReadProof([file], content)
    proof.begin(SourceMark())
    with pytest.raises(OSError, match="Input/output"):
        proof.feed(0, 0, 1, content("", 0, 1))
    failing[0] = False
    proof.feed(0, 0, 1, content("", 0, 1))
    right.begin(SourceMark())
    right.feed(0, 0, 1, content("", 0, 1))
    assert proof.mark(1) == right.mark(1)

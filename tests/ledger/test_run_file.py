"""Folders that are not ours, runs that are others', and records that were damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from ledger_support import Coordinator, assert_complete, open_ledger

from penstock.errors import ConfigError, LedgerDamaged, RunMismatch, UsageError
from penstock.ledger import read_run
from penstock.ledger.run_file import run_file


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_new_run_makes_its_folder_with_what_is_above_it(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "a" / "b" / "out") as ledger:
        assert ledger.state.fresh
    described = json.loads((tmp_path / "a" / "b" / "out" / "run.json").read_bytes())
    assert described["identity"] == {"prompt": "a"}
    assert described["input"] == {"file": "x.jsonl", "bytes": 1}


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, 10).run()
    assert_complete(tmp_path, 10)


@pytest.mark.parametrize("name", ["thesis.txt", "data/part-00000.parquet", "run.json", ".git/config"])
def test_somebody_elses_folder_stays_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"their": "own"}')
    before = tree(tmp_path)
    with pytest.raises(RunMismatch, match=r"not written by Penstock|not a Penstock run"):
        open_ledger(tmp_path)
    assert tree(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunMismatch, match="is a file"):
        open_ledger(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identity": {"prompt": "b"}}, "prompt: a -> b"),
        ({"input_identity": {"file": "x.jsonl", "bytes": 2}}, "bytes: 1 -> 2"),
        ({"order": "completion"}, "order: input -> completion"),
        ({"sink_format": "jsonl"}, "sink_format: parquet -> jsonl"),
    ],
)
def test_another_run_is_refused_with_the_difference(tmp_path: Path, changes: dict, said: str) -> None:
    with open_ledger(tmp_path / "out") as ledger:
        Coordinator(ledger, 10).commit(range(5))
    before = tree(tmp_path)
    with pytest.raises(RunMismatch, match=said):
        open_ledger(tmp_path / "out", **changes)
    assert tree(tmp_path) == before


def test_tuples_and_lists_are_one_identity(tmp_path: Path) -> None:
    for value in (("a", "b"), ["a", "b"]):
        with open_ledger(tmp_path / "out", identity={"steps": value}) as ledger:
            assert ledger.state.seq in (1, 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "which"),
    [(flip, 3), (truncate, 3), (flip, 2), (truncate, 2), (Path.unlink, 2)],  # without entry 3, entry 2 is the newest
)
def test_a_damaged_entry_is_noticed(tmp_path: Path, harm: Callable[[Path], None], which: int) -> None:
    with open_ledger(tmp_path) as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit(range(5))
        coordinator.commit([10, 11])
    harm(tmp_path / ".penstock" / "manifest" / f"0000000{which}.json")
    with pytest.raises(LedgerDamaged, match=r"0000000[23].json"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_a_damaged_segment_is_noticed_before_it_is_published(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    with open_ledger(tmp_path) as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit([10, 11, 12])
        (segment,) = (tmp_path / ".penstock" / "segments").iterdir()
        harm(segment)
        with pytest.raises(LedgerDamaged, match="segment"):
            coordinator.commit(coordinator.remaining())
        assert list((tmp_path / "data").iterdir()) == []


def test_a_committed_part_that_is_gone_is_noticed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, 20).commit(range(5))
    (tmp_path / "data" / "part-00000.parquet").unlink()
    with pytest.raises(LedgerDamaged, match=r"part-00000\.parquet: this committed part is missing"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("ended", [range(5), [10, 11]], ids=["parts", "a segment"])
@pytest.mark.parametrize("harm", [empty, shutil.rmtree])
def test_results_without_a_manifest_are_not_overwritten(
    tmp_path: Path, harm: Callable[[Path], None], ended: Iterable[int]
) -> None:
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, 20).commit(ended)
    before = {name: data for name, data in tree(tmp_path).items() if name.startswith(("data", ".penstock/segments"))}
    harm(tmp_path / ".penstock" / "manifest")
    for opened in (open_ledger, read_run):
        with pytest.raises(LedgerDamaged, match="no manifest"):
            opened(tmp_path)
    assert before.items() <= tree(tmp_path).items()


def test_a_copy_without_the_folders_that_were_empty_is_continued(tmp_path: Path) -> None:
    """As version control and object stores make them."""
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, 20).commit([10, 11])
    for name in ("data", "dead", ".penstock/keys", ".penstock/staging"):
        (tmp_path / name).rmdir()
    with open_ledger(tmp_path) as ledger:
        coordinator = Coordinator(ledger, 20)
        coordinator.commit(coordinator.remaining(), final=True)
    assert_complete(tmp_path, 20)


def test_a_manifest_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, 20).commit(range(5))
    entry = tmp_path / ".penstock" / "manifest" / "00000002.json"
    entry.unlink()
    entry.mkdir()
    with pytest.raises(UsageError, match=r"00000002\.json: can't read the record of this run: Is a directory"):
        read_run(tmp_path)


def test_a_lost_private_folder_or_run_file_is_noticed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        Coordinator(ledger, 20).commit(range(5))
    run_file = (tmp_path / "run.json").read_bytes()
    (tmp_path / "run.json").unlink()
    with pytest.raises(LedgerDamaged, match=r"run\.json is missing"):
        open_ledger(tmp_path)
    (tmp_path / "run.json").write_bytes(run_file)
    shutil.rmtree(tmp_path / ".penstock")
    with pytest.raises(LedgerDamaged, match=r"\.penstock.* is missing"):
        open_ledger(tmp_path)


def test_status_of_what_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunMismatch, match="no Penstock run"):
            read_run(folder)


def test_a_text_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid Unicode"):
        run_file({"prompt": "\ud800 {{ a }}"}, {}, "jsonl", "input")

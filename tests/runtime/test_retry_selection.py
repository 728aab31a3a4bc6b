"""Dead rows that are run again: which rows that takes, and where they are in the source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.counts import Counts
from penstock.data.open import open_source
from penstock.errors import InputError
from penstock.ledger.dead_rows import positions_of
from penstock.ledger.retry import Chosen
from penstock.runtime.retry.scope import ChosenSource, Selection, counted_before
from penstock.spec.load import load_pipeline

PATHS = st.lists(st.integers(0, 2), max_size=3).map(tuple)


def chosen(position: int, path: tuple[int, ...] = (), step: str = "s", phase: int = 0) -> Chosen:
    return Chosen(position, path, step, phase)


@given(dead=st.lists(PATHS, min_size=1, max_size=5), path=PATHS)
def test_a_row_is_wanted_where_it_died_or_is_above_or_below_one_that_did(
    dead: list[tuple[int, ...]], path: tuple[int, ...]
) -> None:
    selection = Selection([chosen(4, one) for one in dead])
    related = any(one == path[: len(one)] or path == one[: len(path)] for one in dead)
    assert selection.wants(4, path) == related
    assert not selection.wants(5, path)


def test_children_that_are_not_made_any_more_are_missed() -> None:
    selection = Selection([chosen(4, (1, 2)), chosen(4, (0,))])
    assert selection.missing(4, (), 2) is None
    assert selection.missing(4, (), 1) == (1, 2)
    assert selection.missing(4, (1,), 2) == (1, 2)
    assert selection.missing(4, (0,), 0) is None


def three_files(folder: Path) -> list[str]:
    """Of 5, 0 and 4 rows, with blank lines, and one line that is no JSON."""
    texts = {
        "a.jsonl": "".join(f'{{"n": {n}}}\n\n' for n in range(5)),
        "b.jsonl": "",
        "c.jsonl": '{"n": 5}\n{"n": \n{"n": 7}\n{"n": 8}\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in texts]


def test_places_are_found_in_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = three_files(tmp_path)
    monkeypatch.setattr("penstock.ledger.dead_rows._SCAN_ROWS", 4)
    places = {(names[0], 0), (names[0], 3), (names[2], 1), (names[2], 3)}
    source = open_source(names, "jsonl", None)
    assert sorted(positions_of(source, places).values()) == [[0], [3], [6], [8]]
    with pytest.raises(InputError, match="has no row 4 in"):
        positions_of(source, {(names[2], 4)})
    source.close()


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=5), st.integers(1, 5))
def test_a_file_that_is_named_several_times_has_as_many_places(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], scanned: int
) -> None:
    files = three_files(tmp_path_factory.mktemp("files"))
    names = [files[index] for index in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.ledger.dead_rows._SCAN_ROWS", scanned)
        every = [(name, row) for name in names for row in range({0: 5, 1: 0, 2: 4}[files.index(name)])]
        source = open_source(names, "jsonl", None)
        found = positions_of(source, set(every))
        source.close()
    assert found == {place: [at for at, other in enumerate(every) if other == place] for place in every}


def test_chosen_rows_are_a_source_of_their_own(tmp_path: Path) -> None:
    source = ChosenSource(open_source(three_files(tmp_path), "jsonl", None), [1, 4, 6, 8])
    first = source.read(0, None, 3)
    assert first is not None and first.origins is not None
    assert (first.positions, [row["n"] for row in first.rows], first.next_position) == ([0, 1], [1, 4], 3)
    assert [(bad.position, bad.row, bad.origin) for bad in first.unreadable] == [(2, 1, 6)]
    assert [origin.position for origin in first.origins] == [1, 4]
    rest = source.read(3, None, 3)
    assert rest is not None and (rest.positions, rest.rows[0]["n"]) == ([3], 8)
    assert source.read(4, None, 3) is None
    skipping = source.read(0, lambda ordinal: ordinal != 3, 4)
    assert skipping is not None and (skipping.positions, skipping.unreadable) == ([3], [])
    source.close()


def test_counts_are_those_without_what_is_run_again(tmp_path: Path) -> None:
    """One source row of three children, two of which died at the last step."""
    (tmp_path / "made.py").write_text("def f(row):\n    return [{}]\n")
    text = json.dumps(
        {
            "models": {"m": {"ref": "mock:m"}},
            "source": {"rows": [{"n": 1}]},
            "steps": [
                {"generate": {"model": "m", "prompt": "{{ n }}", "output": "a", "name": "first"}},
                {"expand": {"function": "json:loads", "version": "1", "name": "split"}},
                {"generate": {"model": "m", "prompt": "{{ a }}", "output": "b", "name": "last"}},
            ],
            "sink": {"path": "out"},
        }
    )
    nodes = load_pipeline(text, "p.yaml").order()
    steps = {"first": (10, 10, 0), "split": (10, 10, 0), "last": (30, 28, 2)}
    counts = Counts(rows_in=10, out=28, dead=2, dead_sources=1, ended_sources=10, steps=steps)
    selection = Selection([chosen(4, (0,), "last"), chosen(4, (2,), "last")])
    left = counts - counted_before(selection, nodes, ())
    assert (left.rows_in, left.out, left.dead, left.ended_sources) == (9, 28, 0, 9)
    assert left.steps == {"first": (9, 9, 0), "split": (9, 9, 0), "last": (28, 28, 0)}


@pytest.mark.parametrize(("phase", "passed"), [(0, 1), (1, 2), (-1, 2)])
def test_a_row_that_could_not_be_written_has_passed_the_steps_of_its_phase(phase: int, passed: int) -> None:
    models = {name: {"ref": f"mock:{name}"} for name in "ab"}
    steps = [{"generate": {"model": name, "prompt": "{{ n }}", "output": name, "name": name}} for name in "ab"]
    text = json.dumps({"models": models, "source": {"rows": [{"n": 1}]}, "steps": steps, "sink": {"path": "out"}})
    counts = Counts(rows_in=9, dead=1, dead_sources=1, ended_sources=9, steps={"a": (9, 9, 0), "b": (8, 8, 0)})
    selection = Selection([chosen(4, (), "sink", phase)])
    left = counts - counted_before(selection, load_pipeline(text, "p.yaml").order(), (1, 2))
    assert left.steps == {"a": (8, 8, 0), "b": (8, 8, 0) if passed == 1 else (7, 7, 0)}

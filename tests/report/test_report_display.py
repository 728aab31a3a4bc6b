from __future__ import annotations

import io
import json

import pytest
from report_samples import running

from penstock.errors import UsageError
from penstock.report.display import JsonDisplay, NoDisplay, PlainDisplay, RichDisplay, choose


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise BrokenPipeError


def test_auto_is_rich_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(choose("auto", Terminal()), RichDisplay)
    assert isinstance(choose("auto", io.StringIO()), PlainDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose("auto", Terminal()), PlainDisplay)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="display: expected auto, rich, plain, jsonl or none, got 'fancy'"):
        choose("fancy", io.StringIO())  # type: ignore[arg-type]


def test_named_kinds() -> None:
    kinds = {"rich": RichDisplay, "plain": PlainDisplay, "jsonl": JsonDisplay, "none": NoDisplay}
    for name, kind in kinds.items():
        assert type(choose(name, io.StringIO())) is kind  # type: ignore[arg-type]


def test_the_old_name_of_json_lines_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="deprecated; use 'jsonl'"):
        assert type(choose("json", io.StringIO())) is JsonDisplay


def test_plain_lines_come_once_per_interval_and_at_each_change_of_status() -> None:
    out = io.StringIO()
    display = PlainDisplay(out, interval_s=5.0)
    for status, wall_s in [
        ("starting", 0.0),
        ("running", 0.5),
        ("running", 5.4),
        ("running", 5.5),
        ("stopping", 6.0),
        ("stopped", 7.0),
    ]:
        display.update(running(status=status, wall_s=wall_s))
    assert [line.split(" | ")[0] for line in out.getvalue().splitlines()] == [
        "starting 0.0s",
        "running 0.5s",
        "running 5.5s",
        "stopping 6.0s",
    ]


def test_json_ends_with_the_final_facts() -> None:
    out = io.StringIO()
    display = JsonDisplay(out)
    display.update(running())
    display.update(running(status="done"))
    display.close(running(status="done"))
    assert [json.loads(line)["status"] for line in out.getvalue().splitlines()] == ["running", "done"]


def test_rich_leaves_the_closing_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    display = RichDisplay(out)
    display.update(running())
    assert "writer-0" in out.getvalue()
    display.close(running(status="stopped"), again="penstock run pipeline.yaml")
    assert out.getvalue().endswith("finished rows are kept and not repeated\n")


@pytest.mark.parametrize("kind", ["rich", "plain", "jsonl"])
def test_a_reader_that_went_away_does_not_end_the_run(kind: str) -> None:
    stream = ClosedPipe()
    display = choose(kind, stream)  # type: ignore[arg-type]
    for wall_s in (0.0, 10.0, 20.0):
        display.update(running(wall_s=wall_s))
    display.close(running(status="done"))
    assert stream.attempts > 0


def test_nothing_is_shown_on_request() -> None:
    display = NoDisplay()
    display.update(running())
    assert display.close(running(status="done")) is None

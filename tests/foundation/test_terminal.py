"""No text that data made acts on a terminal; names of users never leave a folder."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from penstock.cli import output
from penstock.file_names import MOST_BYTES, file_name
from penstock.report.display import JsonDisplay, PlainDisplay, RichDisplay
from penstock.report.facts import DeadExample, PoolFacts, ReplicaFacts, RunFacts, StepFacts
from penstock.report.rich_view import view
from penstock.terminal import cleaned, json_visible, visible

ATTACKS = [
    "\x1b]0;title\x07", "\x1b[2J", "\x1b[31mred", "\x9b31m", "\x9d0;title\x9c", "a\rb", "\x08\x08", "\x00", "\x7f",
    "\u202eabc", "\u2066", "\u200f", "\u2028", "\u2029", "\x85", "\x0b\x0c",
]  # fmt: skip
everything = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("".join(ATTACKS)))


def acts(text: str) -> list[str]:
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        each
        for each in text
        if (unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs") and each not in "\n\t")
        or unicodedata.bidirectional(each) in bidi
        or each in "\u200e\u200f\u061c"
    ]


@given(everything)
def test_what_acts_on_a_terminal_is_made_visible(text: str) -> None:
    assert acts(visible(text)) == []
    assert visible(visible(text)) == visible(text)
    if not acts(text):
        assert visible(text) == text


@given(st.dictionaries(everything, everything))
def test_json_keeps_its_value(value: dict[str, str]) -> None:
    text = json_visible(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value and acts(text) == []


def test_every_output_of_the_command_line_is_safe(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(ATTACKS)
    output.data(text)
    output.note(text)
    output.error(text)
    output.json_data({text: text})
    output.data(output.table([(text, "b"), ("c", text)]))
    captured = capsys.readouterr()
    assert acts(captured.out + captured.err) == []
    assert r"\x1b]0;title\x07" in captured.err and r"\u202e" in captured.err


def test_a_message_of_endless_length_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.error("x" * 1_000_000 + ", and why")
    err = capsys.readouterr().err
    assert len(err) < 5_000 and err.endswith("x, and why\n")


def test_a_message_has_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    output.error("Unknown option: --sett=models.m.base_url=http://u:S3CRET@h/v1?key=S3CRET")
    assert "S3CRET" not in capsys.readouterr().err


def facts(text: str, status: str) -> RunFacts:
    replica = ReplicaFacts(text, text, [text], "ready", reason=text)
    failed = ReplicaFacts(text, text, [text], "failed", reason=text)
    return RunFacts(
        status=status, out_dir=text, wall_s=1.0, total_rows=2, rows_in=2, committed=1, ended=1, out=0, dead=1,
        filtered=0, reused=0, in_memory=0, rows_per_s=1.0, tokens_per_s=1.0, eta_s=1.0, reason=text,
        pools=[PoolFacts(text, [text, text], replicas=[replica, failed])], steps=[StepFacts(text)],
        dead_examples=[DeadExample(text, text, 1, text, text)], warnings=[text],
    )  # fmt: skip


@pytest.mark.parametrize("attack", [*ATTACKS, "line\nbreak", "[bold]x[/bold]", "[link=http://x]y[/link]"])
@pytest.mark.parametrize("display", [PlainDisplay, JsonDisplay, RichDisplay])
def test_no_display_passes_what_acts(display: type, attack: str) -> None:
    stream = io.StringIO()
    shown = display(stream)  # no terminal: rich writes no escapes of its own
    shown.update(facts(attack, "running"))
    shown.close(facts(attack, "failed"), again=attack)
    assert acts(stream.getvalue()) == []


def test_brackets_in_data_are_no_markup_of_rich() -> None:
    console = Console(file=io.StringIO(), width=200, height=60, force_terminal=True)
    text = "[bold][link=http://x]y[/link]"
    console.print(view(cleaned(facts(text, "running")), width=200))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b]8" not in written and written.count("[link=http://x]y[/link]") >= 4


def test_cleaned_goes_all_the_way_down() -> None:
    made = cleaned(facts("\x1b[2J", "running"))
    assert acts(msgspec.json.encode(made).decode()) == [] and made.pools[0].replicas[0].reason == r"\x1b[2J"


NAMES = ["../../evil", "..", ".", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "", "x" * 300, "模型" * 200,
         "Qwen/Qwen3-8B", "Qwen%2FQwen3-8B", "a b", "CON", "\ud800", "-rf", "x" * 301]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_that_of_one_file_in_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{file_name(name)}-0.log"
    path.write_text("x")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and not path.name.startswith(".")
    assert len(file_name(name).encode()) <= MOST_BYTES


def test_different_names_are_different_files() -> None:
    assert len({file_name(name) for name in NAMES}) == len(NAMES)


@given(st.text(), st.text())
def test_no_two_names_meet(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert "/" not in file_name(one) and "\0" not in file_name(one) and file_name(one) not in ("", ".", "..")


def test_usual_names_stay() -> None:
    assert [file_name(name) for name in ("writer-0", "qwen3.5_8b", "école-1")] == ["writer-0", "qwen3.5_8b", "école-1"]

"""Bad input, as a clumsy and a hostile user gives it: one clear message, the right exit code, and nothing lost.

docs/bad-input.md is the table of what is here and in the other test_bad_*.py.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import bad_input_support as support
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_input_support import PIPELINE, SHORT, Here, lines, questions, with_model, with_steps, write
from run_support import dead, output, summary

# ---------------------------------------------------------------- the input can't be read at all


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gone.jsonl", ("gone.jsonl: no such file: ", "the folder has ")),
        ("qq.jsonl", ("qq.jsonl: no such file: ", "did you mean 'q.jsonl'?")),
        ("no/where/q.jsonl", ("no such file", "there is no folder no")),
        ("x*.jsonl", ("x*.jsonl: no file matches the pattern", "check the pattern")),
        ("empty", ("has no data files; looked for .jsonl",)),
        ("notes.txt", ("notes.txt: the suffix '.txt' is not supported",)),
        ("mixed", ("mixes formats", "a.csv is csv", "b.jsonl is jsonl")),
        ("fake.parquet", ("fake.parquet: is not a Parquet file",)),
        ("fake.jsonl.gz", ("fake.jsonl.gz: is not gzip data",)),
        ("utf16.jsonl", ("utf16.jsonl: is UTF-16", "iconv")),
        ("document.json", ("is a single JSON list, not one object per line", "jq -c '.[]'")),
        ("loop.jsonl", ("loop.jsonl: can't be read: Too many levels of symbolic links",)),
        ("/dev/zero", ("is not a regular file",)),
        ("a" * 5000 + ".jsonl", ("File name too long",)),
    ],
)
def test_an_input_that_can_not_be_read(here: Here, path: str, words: tuple[str, ...]) -> None:
    folder = write(here.folder, PIPELINE.replace("q.jsonl", f'"{path}"'))
    for name in ("empty", "mixed"):
        (folder / name).mkdir()
    (folder / "mixed" / "a.csv").write_text("question\n")
    (folder / "mixed" / "b.jsonl").write_text(SHORT)
    (folder / "notes.txt").write_text(SHORT)
    (folder / "fake.parquet").write_text("no Parquet " * 100)
    (folder / "fake.jsonl.gz").write_text(SHORT)
    (folder / "utf16.jsonl").write_bytes(SHORT.encode("utf-16"))
    (folder / "document.json").write_text('[{"question": "a"}, {"question": "b"}]')
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    here.run().refuses(*words)
    assert not (folder / "out").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "closed", "words"),
    [
        ("q.jsonl", "q.jsonl", ("q.jsonl: no permission to read it (mode 0000", "running as uid")),
        ("in", "in", ("in: no permission to read it",)),
        ("in/q.jsonl", "in", ("in/q.jsonl: no permission to read it", "a parent folder can't be entered")),
        ("q.jsonl", "p.yaml", ("p.yaml: can't be read by user",)),
    ],
)
def test_an_input_without_permission(
    tmp_path: Path, without_privileges: dict[str, Any], path: str, closed: str, words: tuple[str, ...]
) -> None:
    write(tmp_path, PIPELINE.replace("q.jsonl", path))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "q.jsonl").write_text(SHORT)
    (tmp_path / closed).chmod(0)
    try:
        support.run(tmp_path, **without_privileges).refuses(*words)
    finally:
        (tmp_path / closed).chmod(0o755)


@pytest.mark.process
def test_an_output_that_can_not_be_written(tmp_path: Path, without_privileges: dict[str, Any]) -> None:
    write(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o555)
    support.run(tmp_path, "--out", "closed/out", **without_privileges).refuses(
        "closed/out: can't make the output folder: Permission denied", "--out"
    )


@pytest.mark.process
def test_a_finished_run_in_a_folder_that_is_read_only_now(tmp_path: Path, without_privileges: dict[str, Any]) -> None:
    write(tmp_path)
    support.run(tmp_path).says(0)
    os.chmod(tmp_path / "out", 0o555)
    again = support.run(tmp_path, **without_privileges)
    again.says(0, "no model was loaded", "can't write out/summary.json: Permission denied; the output rows are safe")
    os.chmod(tmp_path / "out", 0o755)


@pytest.mark.process
def test_an_archive_that_breaks_off_late_keeps_what_came_before(tmp_path: Path) -> None:
    noise = lines(*({"question": os.urandom(40).hex()} for _ in range(50_000)))
    whole = gzip.compress(noise.encode())
    write(tmp_path, PIPELINE.replace("q.jsonl", "q.jsonl.gz"), whole[: len(whole) * 9 // 10], "q.jsonl.gz")
    told = support.run(tmp_path)
    told.says(2, "q.jsonl.gz: the compressed data ends early; it is probably a partial upload", "retry:")
    figures = summary(tmp_path)
    assert figures["status"] == "failed"
    assert figures["rows"]["out"] == len(output(tmp_path)) > 1000


# ---------------------------------------------------------------- inputs that are odd, and all right


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "content"),
    [("q.jsonl", b""), ("q.jsonl", b"\n  \n\r\n"), ("q.csv", b"question\n"), ("q.parquet", None)],
)
def test_an_empty_input_is_a_run_without_rows(tmp_path: Path, name: str, content: bytes | None) -> None:
    write(tmp_path, PIPELINE.replace("q.jsonl", name), content or b"", name)
    if content is None:
        pq.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / name)
    support.run(tmp_path).says(0, f"the source has no rows: {name}")
    assert summary(tmp_path)["rows"] == {"in": 0, "out": 0, "dead": 0, "filtered": 0, "reused": 0}


@pytest.mark.process
def test_marks_line_ends_and_blank_lines_are_accepted(tmp_path: Path) -> None:
    text = "\ufeff" + questions(3).replace("\n", "\r\n") + "\r\n  \r\n" + '{"question": "\u2028"}'
    write(tmp_path, source=text)
    support.run(tmp_path).says(0)
    assert [row["question"] for row in output(tmp_path)] == ["q0", "q1", "q2", "\u2028"]


# ---------------------------------------------------------------- rows that are bad


@pytest.mark.process
def test_each_bad_line_is_one_dead_row_with_its_place(tmp_path: Path) -> None:
    bad = {
        1500: (b'{"question": "a",}', "bad_json", "line 1501:18"),
        1501: (b"[1, 2]", "bad_json", "not a JSON object, but a list"),
        1502: (b'{"question": "a", "question": "b"}', "bad_json", "duplicate key 'question'"),
        1503: (b'{"question": "\xff\xfe"}', "bad_encoding", "not UTF-8 at byte"),
        1504: (b'{"question": "\\ud800"}', "bad_encoding", "surrogate"),
        1505: (b'{"question": NaN}', "bad_number", "NaN"),
        1506: (b'{"question": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep", "64 levels"),
        1507: (b'{"question": 5}', "type_mismatch", "expected string, got integer 5"),
        1508: (b'{"question": "x", "new": 1}', "type_mismatch", "'new'"),
        1509: (b'{"question": null}', "template_missing_field", "column 'question' is null"),
        1510: (b'{"other": "x"}', "type_mismatch", "'other'"),
        1511: (b"{}", "template_missing_field", "'question'"),
        1512: (b'{"question": "' + b" " * (33 << 20) + b'"}', "line_too_long", "the limit is 33554432"),
        1513: (b'{"question": "cut', "bad_json", "the file ends here without a line feed: probably a partial upload"),
    }
    content = questions(1500).encode() + b"\n".join(line for line, _, _ in bad.values())
    write(tmp_path, PIPELINE + "max_dead: 14\n", content)
    support.run(tmp_path).says(0, "1,514 in, 1,500 out, 14 dead", "fix:")
    found = {row["row"]: (row["code"], row["message"]) for row in dead(tmp_path)}
    assert {row: code for row, (code, _) in found.items()} == {row: code for row, (_, code, _) in bad.items()}
    for row, (_, _, words) in bad.items():
        assert words in found[row][1]
    assert [row["question"] for row in output(tmp_path)] == [f"q{number}" for number in range(1500)]


@pytest.mark.process
@pytest.mark.parametrize("content", [b"no JSON\n" * 300, (bytes(range(11, 256)) + b"\n") * 500])
def test_a_file_of_nothing_but_bad_lines_ends_soon_with_code_3(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, source=content)
    support.run(tmp_path).says(3, "more dead rows than max_dead allows", "q.jsonl, row 0: line 1", "continue:")
    assert summary(tmp_path)["status"] == "too_many_dead"


def test_a_misspelt_column_names_the_near_one(here: Here) -> None:
    write(here.folder, PIPELINE.replace("{{ question }}", "{{ qestion }}"))
    here.run().refuses("p.yaml:5: 'prompt' names column 'qestion'", "did you mean 'question'?")


@pytest.mark.process
@pytest.mark.parametrize(
    ("prompt", "max_tokens", "code", "words"),
    [
        ("{{ 10 // (question[1:] | int - 7) }}", 3, "template_error", "ZeroDivisionError"),
        ("{{ question }}", "{{ 3 if question != 'q7' else -1 }}", "bad_sampling", "at least 1, got -1"),
        ("{{ question }}", "{{ 3 if question != 'q7' else 10 ** 30 }}", "bad_sampling", "the most is 2,147,483,647"),
    ],
)
def test_a_template_that_fails_for_one_row(tmp_path: Path, prompt: str, max_tokens: Any, code: str, words: str) -> None:
    step = {"generate": {"model": "writer", "prompt": prompt, "output": "answer", "max_tokens": max_tokens}}
    write(tmp_path, with_steps(step))
    support.run(tmp_path).says(0, "20 in, 19 out, 1 dead")
    (on_dead_row,) = dead(tmp_path)
    assert (on_dead_row["row"], on_dead_row["code"], on_dead_row["step"]) == (7, code, "generate")
    assert words in on_dead_row["message"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{{ question.part.of }}", "5,000"),
        ("{{ question.__class__ }}", "SecurityError"),
        ("{{ 'a' * 10 ** 9 }}", "the limit for one value of a template is 67,108,864"),
    ],
)
def test_a_template_that_fails_for_all_rows_ends_the_run_soon(tmp_path: Path, prompt: str, words: str) -> None:
    step = {"generate": {"model": "writer", "prompt": prompt, "output": "answer"}}
    count = 20_000 if "part" in prompt else 20
    write(tmp_path, with_steps(step), questions(count))
    told = support.run(tmp_path)
    told.says(3, "more dead rows than max_dead allows", " in step generate", "q.jsonl, row 0", "fix:")
    assert words == "5,000" or words in told.err
    assert summary(tmp_path)["rows"]["dead"] < 5000


@pytest.mark.process
def test_too_many_dead_goes_on_with_a_higher_limit(tmp_path: Path) -> None:
    write(tmp_path, PIPELINE.replace("replicas: 1", "engine_options: {fail_on: q1}"))
    support.run(tmp_path).says(3, "more dead rows than max_dead allows", "11 x refused", "with a higher max_dead")
    support.run(tmp_path, "--set", "max_dead=20").says(0, "11 dead")
    assert len(output(tmp_path)) == 9


@pytest.mark.process
@pytest.mark.transformers
def test_a_prompt_beyond_the_context_is_dead_and_never_cut(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from penstock.cli.demo import packaged_model

    long = {"question": "def f(): pass\n" * 2000}
    model = {"ref": str(packaged_model()), "engine": "transformers", "replicas": 1}
    write(tmp_path, with_model(**model) + "max_dead: 1\n", questions(3) + lines(long))
    support.run(tmp_path).says(0, "1 x too_long", "the context of 1024", "Penstock never cuts a prompt")
    assert [row["row"] for row in dead(tmp_path)] == [3]
    assert len(output(tmp_path)) == 3

"""Plain lines, JSON lines and closing texts, word by word."""

from __future__ import annotations

import msgspec
from report_samples import replica, running

from penstock.errors import DEAD_CODES
from penstock.report import final, jsonlines, plain
from penstock.report.facts import DeadExample, PoolFacts, RunFacts
from penstock.report.fixes import FIXES


def test_plain_line() -> None:
    assert plain.line(running()) == (
        "running 1m 24s | 2,448 of 4,000 rows (61.2%) | 812 rows/s | 12,345 tokens/s"
        " | writer 2/2 busy 80% (lowest writer-1 61%) | judge 0/1 ready | in flight 40 | dead 3 | filtered 5"
        " | about 52s left | judge-0: starting (loading weights, 3 of 7 files)"
    )


def test_plain_line_of_a_run_that_has_just_begun() -> None:
    facts = RunFacts("starting", "out", 0.4, None, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, None, reason="reading the schema")
    assert plain.line(facts) == "starting 0.4s | 0 rows | in flight 0 | reading the schema"


def test_plain_line_keeps_to_two_reasons_of_one_line_each() -> None:
    names = [replica(i, state="restarting", reason=f"cause {i}\nand more {'x' * 200}") for i in range(4)]
    line = plain.line(running(pools=[PoolFacts("writer", ["writer"], replicas=names)]))
    assert "\n" not in line
    assert line.endswith("… | and 2 more reasons")


def test_json_line_reads_back() -> None:
    line = jsonlines.line(running())
    assert "\n" not in line
    assert msgspec.json.decode(line, type=RunFacts) == running()


def test_closing_of_a_stopped_run() -> None:
    expected = """\
stopped cleanly after 1m 24s: interrupted
  rows     2,960 in, 2,440 out, 3 dead, 5 filtered, 1,552 remaining
  busy     writer-0 99%, writer-1 99%; 123,456 tokens written
  output   out/answers/data
  dead     out/answers/dead: 3 rows
    2 x too_long in step generate
      first: questions.jsonl row 17: prompt of 9,000 tokens, the limit is 8,192
      fix:   Shorten the prompt, lower `max_tokens`, or raise `max_model_len`; Penstock never cuts a prompt.
    1 x bad_json
      first: questions.jsonl row 40: line 41, column 3: expected a value
      fix:   Correct the line in the source; a truncated last line means that the file was copied incompletely.
  resume:   penstock run pipeline.yaml
            finished rows are kept and not repeated"""
    assert (
        final.closing(running(status="stopped", reason="interrupted"), again="penstock run pipeline.yaml") == expected
    )


def test_closing_of_a_finished_run_asks_for_nothing() -> None:
    facts = running(status="done", dead=0, dead_examples=[], filtered=0, pools=[])
    assert final.closing(facts, again="penstock run pipeline.yaml") == (
        "done in 1m 24s\n  rows     2,960 in, 2,440 out, 0 dead\n  output   out/answers/data"
    )


def test_headlines() -> None:
    assert final.headline(running(status="done", reused=2960)) == (
        "done: all rows were already finished; no model was loaded (1m 24s)"
    )
    assert final.headline(running(status="failed", reason="no replica of writer can load")) == (
        "failed after 1m 24s: no replica of writer can load"
    )
    assert "more dead rows than max_dead allows" in final.headline(running(status="too_many_dead"))


def test_too_many_dead_says_how_to_go_on() -> None:
    text = final.closing(running(status="too_many_dead"), again="penstock run pipeline.yaml")
    assert "  continue: penstock run pipeline.yaml  (with a higher max_dead: --set max_dead=...)" in text


def test_dead_rows_of_earlier_invocations_are_not_forgotten() -> None:
    text = final.closing(running(status="done", dead=10))
    assert text.endswith("    7 of them in earlier invocations: penstock status out/answers")


def test_several_causes_of_a_failure_are_each_on_a_line() -> None:
    facts = running(status="failed", reason="writer-0 exited with code 1\nwriter-1 exited with code 1")
    assert final.headline(facts).endswith(": writer-0 exited with code 1\n  writer-1 exited with code 1")


def test_warnings_and_many_causes_are_told() -> None:
    causes = [DeadExample(f"step-{i}", "refused", 10 - i, "a row 1", "no") for i in range(7)]
    facts = running(status="done", dead=49, dead_examples=causes, warnings=["the source has no rows"])
    text = final.closing(facts)
    assert "  warning  the source has no rows" in text
    assert text.endswith("    9 x for 2 other causes")


def test_many_replicas_are_summed_up() -> None:
    replicas = [replica(i, busy_s=79.0 if i else 40.0) for i in range(20)]
    pool = PoolFacts("writer", ["writer"], first_request_s=1.0, last_response_s=82.0, replicas=replicas)
    assert "busy     96% on average over 20, lowest writer-0 50%" in final.closing(running(status="done", pools=[pool]))


def test_every_code_has_a_mend() -> None:
    assert list(FIXES) == list(DEAD_CODES)


def test_dead_rows_that_were_not_committed_make_no_number_below_zero() -> None:
    """A run that has failed tells what is durable, and examples of what it has seen."""
    assert "earlier invocations" not in final.closing(running(status="failed", dead=1))

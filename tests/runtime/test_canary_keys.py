"""Keys as canaries: in URLs, options and settings, wherever they can be put, right or wrong. See test_canaries.py."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import pytest
from canary_support import ACTS, KEY, ROW, UNREACHABLE, Teller, generate, openai, row_text, service, write

GOOD = [generate()]


def starting(names: Iterable[str], processes: Container[str]) -> list[Any]:
    """The names as parameters; those in `processes` are marked, since a run with them starts replicas."""
    return [pytest.param(name, marks=[pytest.mark.process] if name in processes else []) for name in names]


# ---------------------------------------------------------------- keys in URLs and options

WITH_KEYS: dict[str, Any] = {
    "in the query": f"{UNREACHABLE}?api-key={KEY}",
    "as the query": f"{UNREACHABLE}?{KEY}",
    "sig, escaped": f"{UNREACHABLE}?a=1&sig=%73{KEY[1:]}",
    "in the fragment": f"{UNREACHABLE}#{KEY}",
    "as a password": f"http://user:{KEY}@127.0.0.1:9/v1",
    "as a user": f"http://{KEY}@127.0.0.1:9/v1",
    "a password with a slash": f"http://user:a/{KEY}@127.0.0.1:9/v1",
    "a password with a question mark": f"http://user:{KEY}?x@127.0.0.1:9/v1",
    "another scheme": f"ftp://user:{KEY}@127.0.0.1:9/v1?api-key={KEY}",
    "no scheme": f"127.0.0.1:9/v1?api-key={KEY}",
    "a bad host": f"http://[::1/v1?api-key={KEY}",
    "a bad port": f"http://h:99999/v1?api-key={KEY}",
    "a blank": f"http://h/v1? api-key={KEY}",
    "a list": [f"{UNREACHABLE}?api-key={KEY}", f"http://127.0.0.1:10/v1?token={KEY}"],
    "a mapping": {"api_key": KEY},
}
CALLED = {"in the query", "as the query", "sig, escaped", "in the fragment", "a list"}  # the others are refused
PATIENCE: dict[str, dict[str, float]] = {
    "at the start": {"start_patience_s": 0.1},
    "in a call": {"start_patience_s": 0.0},
}


@pytest.mark.parametrize("when", PATIENCE)
@pytest.mark.parametrize("name", starting(WITH_KEYS, CALLED))
def test_a_key_in_a_url_is_shown_nowhere(name: str, when: str, tell: Teller, tmp_path: Path) -> None:
    model = openai(WITH_KEYS[name], **PATIENCE[when])
    tell.given = write(tmp_path, GOOD, models={"writer": model}, rows=1)
    tell.run()
    tell("plan", "p.yaml")
    tell("plan", "p.yaml", "--json")
    tell("preview", "p.yaml", "-n", "1", rows_on_stdout=True)
    tell.look()


@pytest.mark.process
def test_a_key_of_a_setting_is_not_repeated_by_the_command_that_continues(tell: Teller, tmp_path: Path) -> None:
    tell.given = write(tmp_path, GOOD, models={"writer": openai(UNREACHABLE, start_patience_s=0.1)}, rows=1)
    for url in (f"{UNREACHABLE}?api-key={KEY}", f"[{UNREACHABLE}?api-key={KEY}]", f"http://u:{KEY}@h/v1"):
        tell.run("--set", f"models.writer.base_url={url}")
        tell.look()
    tell.run("--set", f"models.writer.base_url={UNREACHABLE}?api-key={KEY}", display="none")
    assert "api-key=***" in tell.said and "with the key in place of ***" in tell.said


OPTIONS: dict[str, dict[str, Any]] = {
    "an option that is a key": {"api_key": KEY},
    "headers": {"headers": {"Authorization": f"Bearer {KEY}"}},
    "a key in place of a variable": {"api_key_env": KEY},
    "a key in place of a variable, without a dash": {"api_key_env": KEY.replace("-", "")},
    "a key in place of a header's variable": {"headers_env": {"X-Api-Key": KEY}},
    "a key of the body": {"extra_body": {"api_key": KEY, "auth": {"token": KEY}}},
    "an option of a wrong type": {"retries": f"http://u:{KEY}@h"},
}


@pytest.mark.parametrize(
    "name", starting(OPTIONS, {"a key in place of a variable, without a dash", "a key of the body"})
)
def test_a_key_in_an_option_is_shown_nowhere(name: str, tell: Teller, tmp_path: Path) -> None:
    tell.given = write(tmp_path, GOOD, models={"writer": openai(UNREACHABLE, **OPTIONS[name])}, rows=1)
    tell.run()
    tell("plan", "p.yaml", "--json")
    tell.look()


@pytest.mark.process
def test_a_run_whose_key_has_changed_goes_on_and_a_changed_body_is_told_without_it(
    tell: Teller, tmp_path: Path
) -> None:
    tell.given = write(tmp_path, GOOD, models={"writer": openai(UNREACHABLE, extra_body={"api_key": KEY})}, rows=1)
    tell.run(code=(0, 1))
    tell.run("--set", f"models.writer.engine_options.extra_body.api_key={KEY}2", code=(0, 1))
    tell.run("--set", f"models.writer.engine_options.extra_body={{api_key: {KEY}, other: 'http://u:{KEY}@h'}}", code=2)
    assert "differs" in tell.said
    tell.look()


@pytest.mark.process
@pytest.mark.parametrize("where", ["the file", "a setting", "a comment"])
def test_a_retry_is_told_what_to_give_again(where: str, tell: Teller, tmp_path: Path) -> None:
    with service() as url:
        rows = json.dumps({"q": row_text(0, " echo=0; at=0;")}) + "\n"
        with_key = f"{url}?api-key={KEY}"
        tell.given = write(
            tmp_path, GOOD, models={"writer": openai(with_key if where == "the file" else url)}, source=rows
        )
        if where == "a comment":
            with (tmp_path / "p.yaml").open("a") as file:
                file.write(f"# base_url: {with_key}\n")
        setting = ("--set", f"models.writer.base_url={with_key}") if where == "a setting" else ()
        tell.run(*setting, code=(0, 1))
        tell.look()
        assert tell("retry", "out", "--display", "plain") == 2
        assert ("--set" if where == "a setting" else "--pipeline") in tell.said
        again = setting or ("--pipeline", "p.yaml")
        assert tell("retry", "out", "--display", "plain", *again) == 0, tell.said
        tell.look()


# ---------------------------------------------------------------- what a user mistypes

MISTAKES: dict[str, tuple[str, ...]] = {
    "an unknown option": ("run", "p.yaml", f"--sett=models.m.base_url=http://u:{KEY}@h/v1?key={KEY}{ACTS}"),
    "an unknown command": (f"run{ACTS}",),
    "no such file": ("run", f"no{ACTS}.yaml"),
    "no such folder": ("status", f"no{ACTS}"),
    "no such code": ("retry", "out", "--code", f"x{ACTS}"),
    "no such setting": ("run", "p.yaml", "--set", f"models.x{ACTS}.base_url=http://u:{KEY}@h"),
    "a setting of a wrong type": ("run", "p.yaml", "--set", f"models.writer.replicas=http://u:{KEY}@h{ACTS}"),
    "a setting below a value": ("run", "p.yaml", "--set", f"models.writer.ref.base_url=http://u:{KEY}@h{ACTS}"),
    "a setting that is no YAML": ("run", "p.yaml", "--set", f"models.writer.base_url=[http://u:{KEY}@h"),
    "no setting": ("run", "p.yaml", "--set", f"http://u:{KEY}@h"),
    "a limit": ("run", "p.yaml", "--limit", f"x{ACTS}"),
    "a display": ("run", "p.yaml", "--display", f"x{ACTS}"),
    "no such source": ("run", "p.yaml", "--set", f"source.path=no{ROW[:8]}.jsonl"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_without_what_it_holds(name: str, tell: Teller, tmp_path: Path) -> None:
    tell.given = write(tmp_path, GOOD)
    assert tell(*MISTAKES[name]) == 2
    tell.look()

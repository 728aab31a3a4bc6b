"""The flags that `run` and `retry` share."""

from __future__ import annotations

from penstock.cli.options import RunFlags

KEYED = "models.m.base_url=https://me:geheim@host/v1"


def test_the_command_that_continues_has_what_it_needs_again() -> None:
    flags = RunFlags(set_=("seed=2",), executor="ray", ray_address="auto", display="none", takeover=True, json_=True)
    assert flags.words() == ["--set", "seed=2", "--executor", "ray", "--ray-address", "auto"]
    assert RunFlags().words() == []
    assert flags.key_hint == ""


def test_it_is_shown_without_keys() -> None:
    flags = RunFlags(set_=(KEYED,))
    assert "geheim" not in " ".join(flags.words())
    assert flags.key_hint == "  (with the key in place of ***)"


def test_displays_without_words_for_people_are_quiet() -> None:
    assert [kind for kind in ("auto", "rich", "plain", "jsonl", "none") if RunFlags(display=kind).is_quiet] == [  # type: ignore[arg-type]
        "jsonl",
        "none",
    ]

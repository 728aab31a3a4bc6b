"""Errors as values: a copy, as another process gets it, says the same."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest

import penstock as ps
from penstock.errors import CommitError, InputError, LedgerDamaged, PenstockError
from penstock.spec.problems import InvalidSpec, Problem


@pytest.mark.parametrize(
    "error",
    [
        PenstockError("no", where="here"),
        InputError("no", passing=True),
        CommitError("full", errno=28, fatal=False),
        LedgerDamaged("torn", where="manifest"),
        InvalidSpec("Model", [Problem(("replicas",), "expected more")]),
        ps.GenerationError("refused", "too rude", 7),
        ps.TooManyDead("no", SimpleNamespace(exit_code=3)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_says_the_same(error: PenstockError) -> None:
    again = copy.copy(error)
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert vars(again) == vars(error)

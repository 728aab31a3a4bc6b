"""The meaning of sampling fields, and the draw of the transformers engine, as rules."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.sampling import DEFAULT_MAX_TOKENS, Defaults, RowFault, fit, resolve
from penstock.protocol.messages import Request
from penstock.protocol.options import Sampling

NOTHING = Defaults()


def test_unset_fields_are_neutral() -> None:
    resolved = resolve(None, NOTHING, 9)
    assert (resolved.temperature, resolved.top_p, resolved.top_k, resolved.min_p) == (1.0, 1.0, 0, 0.0)
    assert (resolved.presence_penalty, resolved.frequency_penalty, resolved.repetition_penalty) == (0.0, 0.0, 1.0)
    assert resolved.seed == 9


def test_the_generation_config_stands_in_and_the_step_stands_over_it() -> None:
    defaults = Defaults.of({"temperature": 0.6, "top_k": 20, "max_new_tokens": 7, "eos_token_id": 2})
    assert resolve(Sampling(top_k=5), defaults, 0).top_k == 5
    resolved = resolve(Sampling(), defaults, 0)
    assert (resolved.temperature, resolved.top_k, resolved.max_tokens) == (0.6, 20, 7)


def test_a_given_seed_stands_and_greedy_needs_none() -> None:
    assert resolve(Sampling(seed=3), NOTHING, 9).seed == 3
    assert resolve(Sampling(temperature=0.0), NOTHING, 9).seed is None
    assert resolve(Sampling(), NOTHING, None).seed is None


@given(prompt=st.integers(1, 5000), asked=st.none() | st.integers(1, 5000), context=st.integers(1, 4096))
def test_what_fits_is_never_cut_and_what_does_not_is_never_sent(prompt: int, asked: int | None, context: int) -> None:
    resolved = resolve(Sampling(max_tokens=asked, temperature=0.0), NOTHING, 0)
    fits = prompt + (asked or 1) <= context
    try:
        fitted = fit(resolved, prompt, context)
    except RowFault as fault:
        assert not fits and fault.code == "too_long"
        assert str(prompt) in fault.message and str(context) in fault.message
    else:
        assert fits
        assert fitted.max_tokens == (asked or min(context - prompt, DEFAULT_MAX_TOKENS))


def test_without_a_limit_only_an_empty_prompt_is_refused() -> None:
    resolved = resolve(Sampling(), NOTHING, 0)
    assert fit(resolved, 10**6, 0).max_tokens == DEFAULT_MAX_TOKENS
    with pytest.raises(RowFault, match="no tokens") as raised:
        fit(resolved, 0, 0)
    assert raised.value.code == "refused"


@given(
    field=st.sampled_from(["temperature", "top_p", "min_p", "presence_penalty", "repetition_penalty"]),
    value=st.sampled_from([math.nan, math.inf, -math.inf, -3.0]),
)
def test_a_number_that_is_none_is_refused_by_name(field: str, value: float) -> None:
    sampling = msgspec.structs.replace(Sampling(), **{field: value})
    with pytest.raises(RowFault, match=field) as raised:
        resolve(sampling, NOTHING, 0)
    assert raised.value.answer(Request("a prompt", id=1, attempt=2)).code == "refused"


torch = pytest.importorskip("torch")
from penstock.engines.transformers.row import Job, Row, StopScan  # noqa: E402
from penstock.engines.transformers.sample import next_tokens  # noqa: E402

VOCABULARY = 12


def row(seed: int | None = 0, **fields: object) -> Row:
    sampling = fit(resolve(msgspec.structs.replace(Sampling(max_tokens=64), **fields), NOTHING, seed), 2, 0)
    return Row(Job(Request(""), sampling, [1, 2]), 0, frozenset({3}), lambda ids: "")


def draw(logits: list[float], **fields: object) -> int:
    return next_tokens(torch.tensor([logits]), [row(**fields)])[0][0]


scores = st.lists(st.floats(-8, 8, width=16), min_size=VOCABULARY, max_size=VOCABULARY)


@given(logits=scores, seed=st.integers(0, 99))
def test_the_narrowest_choice_is_the_best_one(logits: list[float], seed: int) -> None:
    best = max(logits)
    for fields in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0.0}):
        assert logits[draw(logits, seed=seed, **fields)] == best


@given(logits=scores, seed=st.integers(0, 99), k=st.integers(1, VOCABULARY), p=st.floats(0.05, 1.0))
def test_a_draw_is_one_of_those_allowed(logits: list[float], seed: int, k: int, p: float) -> None:
    ranked = sorted(logits, reverse=True)
    assert logits[draw(logits, seed=seed, top_k=k)] >= ranked[k - 1]
    weights = [math.exp(value) for value in ranked]
    before = [sum(weights[:place]) / sum(weights) for place in range(VOCABULARY)]
    allowed = [value for value, mass in zip(ranked, before, strict=True) if mass < p + 1e-4]
    assert logits[draw(logits, seed=seed, top_p=p)] >= allowed[-1]


@given(seed=st.integers(0, 999), others=st.lists(scores, max_size=4), logits=scores)
def test_a_draw_does_not_depend_on_the_neighbours(seed: int, others: list[list[float]], logits: list[float]) -> None:
    alone = draw(logits, seed=seed, top_p=0.8)
    rows = [*[row(seed=1, top_k=2) for _ in others], row(seed=seed, top_p=0.8)]
    assert next_tokens(torch.tensor([*others, logits]), rows)[0][-1] == alone


def test_without_a_seed_draws_differ() -> None:
    assert len({draw([0.0] * 4, seed=None) for _ in range(60)}) > 1


def test_draws_follow_the_distribution() -> None:
    logits = [math.log(weight) for weight in (0.5, 0.3, 0.15, 0.05)]
    drawn = Counter(draw(logits, seed=seed) for seed in range(2000))
    assert [drawn[token] / 2000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)


def test_penalties_act_on_what_was_put_out() -> None:
    one = row(temperature=0.0, presence_penalty=1.0, frequency_penalty=0.5)
    for token in (5, 5, 6):
        one.append(token, None)
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 5], logits[0, 6], logits[0, 7] = 1.9, 1.6, 0.05
    assert next_tokens(logits, [one])[0] == [6]  # 1.9 - 2.0, 1.6 - 1.5, 0.05
    logits[0, 7] = 0.2
    assert next_tokens(logits, [one])[0] == [7]


def test_a_row_without_numbers_is_unsound_and_the_others_are_not() -> None:
    logits = torch.zeros(3, VOCABULARY)
    logits[1, 4] = torch.nan
    assert next_tokens(logits, [row(), row(), row(temperature=0.0)])[2] == [True, False, True]


@given(
    pieces=st.lists(st.text("ab\u00e9", min_size=1, max_size=3), min_size=1, max_size=12),
    stop=st.text("ab\u00e9", min_size=1, max_size=4),
)
def test_a_stop_string_is_found_where_it_first_ends(pieces: list[str], stop: str) -> None:
    scan = StopScan([stop], lambda ids: "".join(pieces[each] for each in ids))
    whole = "".join(pieces)
    for count in range(1, len(pieces) + 1):
        found = scan.found(list(range(count)), True)
        assert found == (stop in "".join(pieces[:count]))
        if found:
            assert scan.cut == whole[: whole.index(stop)]
            return


def test_half_a_character_waits_for_its_other_half() -> None:
    data = "na\u00efve caf\u00e9".encode()
    scan = StopScan(["\u00e9"], lambda ids: bytes(data[each] for each in ids).decode(errors="replace"))
    found = [scan.found(list(range(count)), True) for count in range(1, len(data) + 1)]
    assert found.index(True) == len(data) - 1
    assert scan.cut == "na\u00efve caf"

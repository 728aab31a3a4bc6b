"""The next token of every row of a batch, each row with its own sampling.

The order is that of transformers: repetition penalty, minimum length, (presence and frequency penalties,)
temperature, top-k, top-p, min-p, on float32 logits. Log probabilities are of the raw logits. A draw is one uniform
number of the row's own generator looked up in the cumulative distribution, so that it depends on the row's seed and
logits alone, never on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from penstock.engines.transformers.row import Row

__all__ = ["Drawn", "next_tokens"]

Drawn = tuple[list[int], list[float | None], list[bool]]


def next_tokens(logits: Any, rows: Sequence[Row]) -> Drawn:
    """Tokens, log probabilities (None where not asked) and soundness of each row.

    logits: [rows, vocabulary], any float type. A row is unsound when its logits have a NaN; its token means nothing.
    """
    logits = logits.float()
    raw = logits
    if any(_is_shaped(row) for row in rows):
        logits = logits.clone()
        for index, row in enumerate(rows):
            _shape(logits[index], row)
    best, tokens = logits.max(dim=-1)
    sampled = [index for index, row in enumerate(rows) if not row.sampling.greedy]
    sound = (~best.isnan()).tolist()
    sampled = [index for index in sampled if sound[index]]
    if sampled:
        tokens[sampled] = _draw(logits[sampled], [rows[index] for index in sampled])
    return tokens.tolist(), _logprobs(raw, tokens, rows), sound


def _is_shaped(row: Row) -> bool:
    sampling = row.sampling
    penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
    return bool(penalised) or not row.may_end


def _shape(logits: Any, row: Row) -> None:
    """Penalties and the minimum length, in place, on one row's logits [vocabulary]."""
    sampling = row.sampling
    device = logits.device
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*row.prompt_ids, *row.output_ids}), device=device)
        values = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(values < 0, values * penalty, values / penalty)
    if row.counts:
        tokens = torch.tensor(list(row.counts.keys()), device=device)
        counts = torch.tensor(list(row.counts.values()), device=device, dtype=logits.dtype)
        logits[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    if len(row.output_ids) < sampling.min_tokens and row.eos_ids:
        logits[torch.tensor(sorted(row.eos_ids), device=device)] = -torch.inf


def _column(values: Sequence[float], logits: Any, dtype: Any = None) -> Any:
    return torch.tensor(values, device=logits.device, dtype=dtype or logits.dtype).unsqueeze(-1)


def _draw(logits: Any, rows: Sequence[Row]) -> Any:
    """One token for each of the rows [rows, vocabulary] that are not greedy."""
    settings = [row.sampling for row in rows]
    logits = logits / _column([each.temperature for each in settings], logits)
    order = None
    if any(each.top_k or each.top_p < 1 or each.min_p for each in settings):
        logits, order = logits.sort(dim=-1, descending=True, stable=True)
        logits = _truncate(logits, rows)
    cumulative = logits.softmax(dim=-1).double().cumsum(dim=-1)
    uniform = _column([row.random.random() for row in rows], logits, torch.float64)
    places = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    # Rounding may put the number at the very end of the distribution, where tokens without probability lie.
    last = (cumulative < cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    places = torch.minimum(places, last)
    return (places if order is None else order.gather(-1, places)).squeeze(-1)


def _truncate(logits: Any, rows: Sequence[Row]) -> Any:
    """top-k, then top-p, then min-p, on logits sorted downwards [rows, vocabulary]."""
    settings = [row.sampling for row in rows]
    size = logits.shape[-1]
    if any(each.top_k for each in settings):
        keep = _column([each.top_k or size for each in settings], logits, torch.int64)
        logits = logits.masked_fill(torch.arange(size, device=logits.device) >= keep, -torch.inf)
    if any(each.top_p < 1 for each in settings):
        probabilities = logits.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        limits = _column([each.top_p if each.top_p < 1 else 2.0 for each in settings], logits)
        logits = _but_first(logits, before >= limits)
    if any(each.min_p for each in settings):
        probabilities = logits.softmax(dim=-1)
        limits = _column([each.min_p for each in settings], logits) * probabilities[:, :1]
        logits = _but_first(logits, probabilities < limits)
    return logits


def _but_first(logits: Any, masked: Any) -> Any:
    """Mask, but never the most likely token."""
    masked[:, 0] = False
    return logits.masked_fill(masked, -torch.inf)


def _logprobs(raw: Any, tokens: Any, rows: Sequence[Row]) -> list[float | None]:
    asked = [index for index, row in enumerate(rows) if row.sampling.logprobs is not None]
    found: list[float | None] = [None] * len(rows)
    if asked:
        chosen = raw[asked].log_softmax(dim=-1).gather(-1, tokens[asked].unsqueeze(-1)).squeeze(-1)
        for index, value in zip(asked, chosen.tolist(), strict=True):
            found[index] = value
    return found

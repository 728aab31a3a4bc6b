"""Batching for decoders with sliding windows, recurrent states or other memories: cohorts.

Rows that arrive together form a cohort: a left-padded batch with the model's own cache, as `model.generate` would
make it. Cohorts run beside each other, one forward pass each per step, and an ended row leaves its cohort at once, so
new rows never wait for old ones to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from penstock.engines.transformers.row import Row
from penstock.engines.transformers.sample import Drawn, next_tokens

__all__ = ["CohortDecoder"]


class Cohort:
    """Rows that began together. Where a layer's memory can't lose rows, ended ones stay in it as ghosts."""

    def __init__(self, model: Any, rows: list[Row], pad_id: int, takes_positions: bool) -> None:
        self.rows = rows
        self._model = model
        self._places = list(range(len(rows)))  # the place of each row in the model's batch
        self._takes_positions = takes_positions
        self._cache = DynamicCache(config=model.config)
        width = max(len(row.prompt_ids) for row in rows)
        padding = [width - len(row.prompt_ids) for row in rows]
        device = model.device
        ids = [[pad_id] * pad + row.prompt_ids for pad, row in zip(padding, rows, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        self._mask = torch.tensor(mask, device=device)
        self._inputs = torch.tensor(ids, device=device)

    @property
    def tokens(self) -> int:
        return int(self._mask.numel())

    def forward(self) -> Any:
        """Logits [rows, vocabulary] after the tokens so far."""
        arguments: dict[str, Any] = {}
        if self._takes_positions:
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -self._inputs.shape[1] :]
        output = self._model(
            input_ids=self._inputs,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **arguments,
        )
        return output.logits[self._places, -1]

    def advance(self) -> Any:
        """Feed each row's newest token; logits [rows, vocabulary]."""
        newest = self._inputs.new_zeros(self._mask.shape[0], 1)
        newest[self._places, 0] = newest.new_tensor([row.output_ids[-1] for row in self.rows])
        self._inputs = newest
        self._mask = torch.cat([self._mask, self._mask.new_ones(self._mask.shape[0], 1)], dim=-1)
        return self.forward()

    def drop(self, ended: set[int]) -> None:
        kept = [index for index in range(len(self.rows)) if index not in ended]
        self.rows = [self.rows[index] for index in kept]
        self._places = [self._places[index] for index in kept]
        if kept and all(hasattr(layer, "batch_select_indices") for layer in self._cache.layers):
            indices = torch.tensor(self._places, device=self._mask.device)
            self._cache.batch_select_indices(indices)
            self._mask = self._mask[indices]
            self._places = list(range(len(kept)))


class CohortDecoder:
    """All cohorts as one batch; the same face as SlotDecoder."""

    def __init__(self, model: Any, slots: int, kv_tokens: int, pad_id: int, takes_positions: bool) -> None:
        self._model = model
        self._slots = slots
        self._kv_tokens = kv_tokens
        self._pad_id = pad_id
        self._takes_positions = takes_positions
        self._cohorts: list[Cohort] = []

    @property
    def rows(self) -> list[Row]:
        return [row for cohort in self._cohorts for row in cohort.rows]

    def room(self, joining: Sequence[Row], row: Row) -> bool:
        rows = [*self.rows, *joining, row]
        expected = sum(each.longest for each in rows)
        return len(rows) == 1 or (len(rows) <= self._slots and expected <= self._kv_tokens)

    def add(self, joining: Sequence[Row]) -> Drawn:
        cohort = Cohort(self._model, list(joining), self._pad_id, self._takes_positions)
        logits = cohort.forward()
        self._cohorts.append(cohort)
        return next_tokens(logits, joining)

    def step(self) -> Drawn:
        drawn = [next_tokens(cohort.advance(), cohort.rows) for cohort in self._cohorts]
        tokens = [token for each in drawn for token in each[0]]
        logprobs = [value for each in drawn for value in each[1]]
        sound = [value for each in drawn for value in each[2]]
        return tokens, logprobs, sound

    def drop(self, ended: set[int], wipe: bool = False) -> None:
        start = 0
        for cohort in self._cohorts:
            count = len(cohort.rows)
            mine = {index - start for index in ended if start <= index < start + count}
            if mine:
                cohort.drop(mine)
            start += count
        self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]

    def clear(self) -> list[Row]:
        rows = self.rows
        self._cohorts = []
        return rows

    def shrink(self) -> bool:
        if self._slots == 1:
            return False
        self._slots = max(1, min(self._slots, len(self.rows) or self._slots) // 2)
        return True

"""Continuous batching for decoders whose layers all attend to everything: one batch whose rows come and go.

The cache is one buffer per layer, [slots, heads, length, head_dim]. A row owns one slot and writes the keys and
values of its token p at place p, so rows of different ages lie side by side without padding:

    slot 0   p p p p p p o o o .      p: prompt, o: output, .: free
    slot 1   p p p o . . . . . .      the active rows are slots 0 ... n-1: the batch is a view, nothing is copied
    slot 2   p p p p p p p p o o      a row that ends is replaced by the last one (one row is copied)

A prefill of newcomers is right-padded: with causal attention no real token sees the padding, and what the padding
writes lies behind the row's end, where the mask hides it until the row's own tokens overwrite it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from penstock.engines.transformers.row import Row
from penstock.engines.transformers.sample import Drawn, next_tokens

__all__ = ["SlotDecoder"]

LENGTH_STEP = 128
"""Slots grow by doubling, in multiples of this many tokens."""


class SlotRange:
    """Where the forward pass that runs now reads and writes; shared by all layers.

    prefill   the slots [start, stop) get whole prompts, which see only themselves
    decode    the slots [0, stop) get one token each, at `positions`, and see `length` places
    """

    def __init__(self) -> None:
        self.start = 0
        self.stop = 0
        self.positions: Any = None
        self.rows: Any = None
        self.length = 0
        self.slots = 0
        self.capacity = 0


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # the library is untyped
    """One layer's keys and values, [slots, heads, capacity, head_dim]."""

    def __init__(self, place: SlotRange) -> None:
        super().__init__()
        self.keys: Any = None
        self.values: Any = None
        self.is_initialized: bool = False
        self._place = place

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        place = self._place
        if not self.is_initialized or self.keys.shape[0] != place.slots or self.keys.shape[2] < place.capacity:
            self._resize(key_states, value_states)
        if place.positions is None:
            width = key_states.shape[2]
            self.keys[place.start : place.stop, :, :width] = key_states
            self.values[place.start : place.stop, :, :width] = value_states
            return key_states, value_states
        self.keys[place.rows, :, place.positions] = key_states[:, :, 0]
        self.values[place.rows, :, place.positions] = value_states[:, :, 0]
        return self.keys[: place.stop, :, : place.length], self.values[: place.stop, :, : place.length]

    def _resize(self, key_states: Any, value_states: Any) -> None:
        old = (self.keys, self.values) if self.is_initialized else (None, None)
        self.keys = self._grown(old[0], key_states)
        self.values = self._grown(old[1], value_states)
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def _grown(self, old: Any, like: Any) -> Any:
        place = self._place
        # Zeroes, since a place that is masked still takes part: nothing times not-a-number is not a number.
        new = like.new_zeros(place.slots, like.shape[1], place.capacity, like.shape[3])
        if old is not None:
            slots, length = min(place.slots, old.shape[0]), min(place.capacity, old.shape[2])
            new[:slots, :, :length] = old[:slots, :, :length]
        return new

    def get_seq_length(self) -> int:
        return 0 if self._place.positions is None else self._place.length - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (query_length, 0) if self._place.positions is None else (self._place.length, 0)

    def move(self, source: int, target: int) -> None:
        self.keys[target] = self.keys[source]
        self.values[target] = self.values[source]

    def wipe(self, start: int) -> None:
        self.keys[start:] = 0
        self.values[start:] = 0


class SlotDecoder:
    """The running batch. `rows[i]` is in slot i.

    slots      rows at once, at most
    kv_tokens  places in the buffer at once, at most
    """

    def __init__(self, model: Any, slots: int, kv_tokens: int, pad_id: int) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._slots = slots
        self._kv_tokens = kv_tokens
        self._pad_id = pad_id
        self._reset()

    def _reset(self) -> None:
        self._place = SlotRange()
        place = self._place
        self._cache = Cache(layer_class_to_replicate=lambda: SlotLayer(place))

    def room(self, joining: Sequence[Row], row: Row) -> bool:
        """Whether `row` may join the batch together with `joining`."""
        count = len(self.rows) + len(joining) + 1
        length = max(each.longest for each in (*self.rows, *joining, row))
        return count == 1 or (count <= self._slots and count * length <= self._kv_tokens)

    def add(self, joining: Sequence[Row]) -> Drawn:
        """Prefill newcomers, put them into the batch, and draw the first token of each."""
        place = self._place
        width = max(len(row.prompt_ids) for row in joining)
        self._provide(len(self.rows) + len(joining), width)
        place.positions = None
        place.start, place.stop = len(self.rows), len(self.rows) + len(joining)
        padded = [row.prompt_ids + [self._pad_id] * (width - len(row.prompt_ids)) for row in joining]
        last = [len(row.prompt_ids) - 1 for row in joining]
        wanted = sorted(set(last))
        device = self._model.device
        output = self._model(
            input_ids=torch.tensor(padded, device=device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.tensor(wanted, device=device),
        )
        which = {position: index for index, position in enumerate(wanted)}
        columns = torch.tensor([which[position] for position in last], device=device)
        logits = output.logits[torch.arange(len(joining), device=device), columns]
        self.rows.extend(joining)
        return next_tokens(logits, joining)

    def step(self) -> Drawn:
        """One token for every row of the batch."""
        place, device = self._place, self._model.device
        positions = [row.next_position for row in self.rows]
        length = max(positions) + 1
        self._provide(len(self.rows), length)
        place.length, place.stop = length, len(self.rows)
        place.positions = torch.tensor(positions, device=device)
        place.rows = torch.arange(len(self.rows), device=device)
        output = self._model(
            input_ids=torch.tensor([row.output_ids[-1:] for row in self.rows], device=device),
            attention_mask=self._mask(positions, length),
            position_ids=place.positions.unsqueeze(-1),
            past_key_values=self._cache,
            use_cache=True,
        )
        return next_tokens(output.logits[:, -1], self.rows)

    def _mask(self, positions: Sequence[int], length: int) -> Any:
        """None where every row is as long, which lets the kernel be the one that a lone prompt gets."""
        if min(positions) == length - 1:
            return None
        model, place = self._model, self._place
        hidden = torch.arange(length, device=model.device) > place.positions.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, dtype=model.dtype, device=model.device)
        return mask.masked_fill_(hidden, torch.finfo(model.dtype).min)[:, None, None, :]

    def drop(self, ended: set[int], wipe: bool = False) -> None:
        """Take the rows in these slots out of the batch. wipe: leave nothing of them behind (not-a-number spreads)."""
        for slot in sorted(ended, reverse=True):
            final = len(self.rows) - 1
            if slot != final:
                self.rows[slot] = self.rows[final]
                for layer in self._cache.layers:
                    layer.move(final, slot)
            self.rows.pop()
        if wipe:
            for layer in self._cache.layers:
                layer.wipe(len(self.rows))

    def clear(self) -> list[Row]:
        """Forget the batch and free its memory; the rows that were in it."""
        rows, self.rows = self.rows, []
        self._reset()
        return rows

    def shrink(self) -> bool:
        """After running out of memory: half as many places from now on. False when a row already runs alone."""
        if self._slots == 1:
            return False
        self._slots = max(1, min(self._slots, len(self.rows) or self._slots) // 2)
        return True

    def _provide(self, slots: int, length: int) -> None:
        """Make the buffer hold `slots` rows of `length` tokens, with as much spare as the budget allows."""
        place = self._place
        if slots <= place.slots and length <= place.capacity:
            return
        capacity = max(place.capacity, -(-length // LENGTH_STEP) * LENGTH_STEP)
        if length > place.capacity > 0:
            capacity = max(capacity, min(2 * place.capacity, self._kv_tokens // max(slots, 1)))
        place.capacity = capacity
        place.slots = max(slots, min(self._slots, max(1, self._kv_tokens // capacity)))

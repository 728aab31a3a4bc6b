"""How long prompts and outputs are expected to be, learned per step.

Of prompts, what hosts counted in relation to what was guessed: scripts differ in their bytes to a token. Of outputs,
what is learned is the share of its limit that an output uses: for steps with one limit that is the mean length, and for
steps whose rows bring their own limit it keeps their order.
"""

from __future__ import annotations

_WEIGHT = 0.1  # of the newest answers; old ones fade within some tens of events


class Lengths:
    def __init__(self) -> None:
        self.ratio: dict[int, float] = {}  # step -> expected output / limit
        self.prompt_ratio: dict[int, float] = {}  # step -> tokens of prompts as hosts counted them / as guessed

    def expected(self, step: int, limit: int) -> int:
        """Tokens that an output limited to `limit` is expected to have; the limit while nothing is known."""
        return int(limit * self.ratio.get(step, 1.0) + 0.999)

    def prompt(self, step: int, guessed: int) -> int:
        """Tokens that a prompt is expected to have; as guessed while no host has counted one."""
        ratio = self.prompt_ratio.get(step)
        return guessed if ratio is None else int(guessed * ratio + 0.999)

    def learn_prompt(self, step: int, counted: int, guessed: int) -> None:
        seen = counted / max(guessed, 1)
        before = self.prompt_ratio.get(step)
        self.prompt_ratio[step] = seen if before is None else before + _WEIGHT * (seen - before)

    def learn(self, step: int, tokens_out: int, limits: int) -> None:
        """Some answers of one step had `tokens_out` tokens together, of `limits` allowed."""
        # A step that generates nothing teaches nothing.
        if limits <= 0:
            return
        # Never above the limit, however an engine counts: it bounds what a request can hold.
        seen = min(1.0, tokens_out / limits)
        before = self.ratio.get(step)
        self.ratio[step] = seen if before is None else before + _WEIGHT * (seen - before)

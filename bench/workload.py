"""The mixed workload: prompts cut from the standard library, output lengths drawn from a log-normal law.

A row is {"prompt": str, "n": int}; `n` is the number of tokens to generate. Everything follows from the seed.
"""

from __future__ import annotations

import math
import random
from typing import Any

from make_model import standard_library_text

CHARACTERS_PER_TOKEN = 3.9  # of standard library source under the tokenizer that make_model trains


def log_normal_length(rng: random.Random, median: float, sigma: float, low: int, high: int) -> int:
    """One length in tokens: log-normal around `median`, clipped to [low, high]."""
    return min(high, max(low, round(median * math.exp(sigma * rng.gauss(0.0, 1.0)))))


def mixed_rows(rows: int = 1000, seed: int = 1, total_tokens: int = 55_000) -> list[dict[str, Any]]:
    """Prompts of about 80 tokens (15 to some 300) and outputs of 4 to 384 tokens, `total_tokens` per 1,000 rows."""
    rng = random.Random(seed)
    text = "".join(standard_library_text())
    made = []
    for _ in range(rows):
        start = rng.randrange(len(text) - 2000)
        prompt_tokens = log_normal_length(rng, 80, 0.6, 15, 300)
        prompt = text[start : start + int(prompt_tokens * CHARACTERS_PER_TOKEN)]
        made.append({"prompt": prompt, "n": 0})
    median = total_tokens / 1000 / 1.58  # a log-normal of sigma 1 clipped to [4, 384] has a mean of 1.58 medians
    for row in made:
        row["n"] = log_normal_length(rng, median, 1.0, 4, 384)
    return made

"""Reading config.json of a model, as untrusted input.

Fields are asked for by the names that the field's own libraries give them; several names stand for one thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.errors import PlanError

__all__ = ["ModelConfig", "read_config"]

# Where models that read more than text keep the configuration of their text part.
NESTED = ("text_config", "llm_config", "language_config", "decoder_config")
# What the field's own library fills in where a published config.json leaves it out.
DEFAULTS: dict[str, dict[str, int]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256, "sliding_window": 4096},
    "gemma3_text": {
        "head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208,
        "max_position_embeddings": 131072, "sliding_window": 4096,
    },
    "mistral": {"num_key_value_heads": 8},
    "mixtral": {"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
}  # fmt: skip
DTYPES = ("bfloat16", "float16", "float32")
MAX_BYTES = 10_000_000


class ModelConfig:
    """A configuration, that of the text part in front. `where` is its file, for messages."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.outer = fields
        nested = next((fields[key] for key in NESTED if isinstance(fields.get(key), Mapping)), None)
        self.has_other_parts = nested is not None
        self._text: Mapping[str, Any] = nested if nested is not None else fields

    def get(self, *names: str) -> Any:
        """The first of these fields that is given, of the text part or else of the whole."""
        for fields in (self._text, self.outer):
            for name in names:
                if fields.get(name) is not None:
                    return fields[name]
        defaults = DEFAULTS.get(self.model_type, {})
        return next((defaults[name] for name in names if name in defaults and name not in self._text), None)

    def whole(self, *names: str, default: int | None = None) -> int:
        """A whole number of at least 0. Raises PlanError where there is none and no default."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if value is None:
            raise PlanError(f"has no '{names[0]}', so the model's size can't be known", where=self.where)
        raise PlanError(f"'{names[0]}': expected a whole number of at least 0, got {value!r}", where=self.where)

    def positive(self, *names: str) -> int:
        value = self.whole(*names)
        if value == 0:
            raise PlanError(f"'{names[0]}': expected at least 1, got 0", where=self.where)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        return value if isinstance(value, bool) else default

    @property
    def model_type(self) -> str:
        for fields in (self._text, self.outer):
            if isinstance(fields.get("model_type"), str):
                return str(fields["model_type"])
        return ""

    @property
    def architecture(self) -> str:
        """The class that the model names, else its type."""
        named = self.outer.get("architectures")
        if isinstance(named, list) and named and isinstance(named[0], str):
            return named[0]
        return self.model_type or "unknown"

    @property
    def dtype(self) -> str | None:
        """bfloat16 | float16 | float32, or None where nothing or something else is given."""
        value = self.get("dtype", "torch_dtype")
        name = str(value).removeprefix("torch.") if value is not None else ""
        return name if name in DTYPES else None

    @property
    def quantization(self) -> Mapping[str, Any]:
        found = self.get("quantization_config", "compression_config")
        return found if isinstance(found, Mapping) else {}


def read_config(path: Path) -> ModelConfig:
    """Raises PlanError for a file that is missing, unreadable or no JSON object."""
    where = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PlanError(f"larger than {MAX_BYTES:,} bytes; that is not a model's config.json", where=where)
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise PlanError(f"can't be read: {error.strerror}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise PlanError(f"is not valid JSON ({error}); download it again", where=where) from None
    if not isinstance(fields, dict):
        raise PlanError("is not a JSON object; download it again", where=where)
    return ModelConfig(fields, where)

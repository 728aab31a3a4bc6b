"""Make the benchmark's model: a seeded random 27M-parameter Qwen3-shaped network with a byte-level BPE tokenizer.

    python bench/make_model.py FOLDER

The weights are noise, so the output is noise; speed is that of a trained model of this shape. The tokenizer is
trained on the standard library's own source. The same seed and the same Python give the same folder. Needs torch,
transformers and tokenizers.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

VOCABULARY = 8192
SEED = 20261120
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 512,
    "intermediate_size": 1344,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def standard_library_text(limit_bytes: int = 4_000_000) -> Iterator[str]:
    """The source of the standard library's modules in name order, up to `limit_bytes`."""
    total = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        total += len(text)
        yield text
        if total >= limit_bytes:
            return


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(standard_library_text(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|pad|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**facts, "model_max_length": 2048}))


def make_weights(folder: Path) -> int:
    """Write config and weights; return the number of parameters."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    config = Qwen3Config(**SHAPE, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    parameters = make_weights(folder)
    (folder / "made.json").write_text(json.dumps({"parameters": parameters, "seed": SEED}))
    print(f"{folder}: {parameters / 1e6:.1f}M parameters, vocabulary {VOCABULARY}")


if __name__ == "__main__":
    main()

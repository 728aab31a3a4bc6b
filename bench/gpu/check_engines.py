"""Checks the transformers and vllm engines on a real device, through the host, against the libraries themselves.

    python bench/gpu/check_engines.py --out results.json [--quick] [--only vllm] [--device cpu]

Greedy tokens must equal the library's where both compute the same (see README.md beside this file); throughput is
measured on the mixed workload with a seeded random model and compared with the bare library. Writes one JSON file,
prints one line per check, and exits 1 when a check that must hold does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]

from hosted import bare, hosted, one_pass  # noqa: E402

import penstock  # noqa: E402
from penstock.protocol.messages import EngineConfig  # noqa: E402
from penstock.protocol.options import Sampling  # noqa: E402

DOCWRITER = str(Path(penstock.__file__).parent / "models" / "docwriter")
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
SHAPE = {  # of Qwen3-0.6B, with the benchmark's own vocabulary
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
LEAST_RATIO = 0.95
"""Of the bare library's throughput: what a host and its socket may cost."""


class Bench:
    """Where to work, on what, and how much of it."""

    def __init__(self, folder: Path, device: str, quick: bool) -> None:
        self.folder = folder
        self.device = device
        self.quick = quick
        self.passes = 1 if quick else 3
        self.on_gpu = device != "cpu"
        self.gpu_share = {"gpu_memory_utilization": 0.6} if self.on_gpu else {}

    def config(self, engine: str, model: str, dtype: str, **options: Any) -> EngineConfig:
        devices = ("here/gpu:0",) if self.on_gpu else ("here/cpu:0",)
        return EngineConfig(engine, model, dtype=dtype, engine_options=options, devices=devices)

    def signatures(self) -> list[str]:
        names = [f"{a}.{b}_{c}" for a in ("Queue", "Path", "Socket", "Parser") for b in ("get", "set", "read", "open")
                 for c in ("value", "item_by_name", "line", "state")]  # fmt: skip
        prompts = [
            f"Write a one-line docstring for:\ndef {name}(self, {more})" for name in names for more in ("x", "a, b")
        ]
        return prompts[: 32 if self.quick else 128]

    def made_model(self) -> str:
        """A seeded random model in the shape of Qwen3-0.6B; small where there is no device."""
        folder = self.folder / "model"
        if not (folder / "config.json").exists():
            import make_model

            if self.on_gpu:
                make_model.SHAPE.update(SHAPE)
            folder.mkdir(parents=True)
            make_model.make_tokenizer(folder)
            make_model.make_weights(folder)
        return str(folder)


def chat_ids(prompts: Sequence[str]) -> list[list[int]]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(DOCWRITER)
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def greedy(
    bench: Bench, engine: str, dtype: str, name: str, env: dict[str, str], batch: int = 1, **options: Any
) -> dict[str, Any]:
    """How many of the prompts get other tokens from the engine than from the library alone."""
    prompts = bench.signatures()
    own = {**options} if engine == "transformers" else {**options, **bench.gpu_share}
    library = {"dtype": dtype} if engine == "transformers" else {"dtype": dtype, **own}
    asked = {
        "library": engine, "model": DOCWRITER, "options": library, "prompts": chat_ids(prompts), "passes": 1,
        "max_tokens": [48] * len(prompts), "ignore_eos": False, "batch": batch,
        "device": "cuda:0" if bench.on_gpu else "cpu",
    }  # fmt: skip
    wanted = bare(asked, bench.folder / name / "bare", env)
    with hosted(bench.config(engine, DOCWRITER, dtype, **own), bench.folder / name / "hosted", env) as (host, ready):
        answers, _ = one_pass(host, prompts, [Sampling(max_tokens=48, temperature=0.0, logprobs=0)] * len(prompts))
    got = [answer.outputs[0].token_ids if not answer.code else answer.message for answer in answers]
    differing = sum(one != other for one, other in zip(got, wanted["tokens"], strict=True))
    return {"prompts": len(prompts), "differing": differing, "dtype": dtype, "library": wanted["library"],
            "torch": wanted["torch"], "load_s": ready.load_s, "facts": ready.capacity.facts}  # fmt: skip


def throughput(bench: Bench, engine: str, batch: int = 64, **options: Any) -> dict[str, Any]:
    """Tokens per second of the mixed workload, through the host and by the library itself."""
    import transformers

    from workload import mixed_rows

    rows = mixed_rows(rows=(60 if bench.quick else 2000) if engine == "vllm" else (40 if bench.quick else 500))
    limits = [row["n"] for row in rows]
    model = bench.made_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    own = {**options} if engine == "transformers" else {**options, **bench.gpu_share, "enable_prefix_caching": False}
    asked = {
        "library": engine, "model": model, "prompts": [tokenizer.encode(row["prompt"]) for row in rows],
        "options": {"dtype": "bfloat16"} if engine == "transformers" else {"dtype": "bfloat16", **own},
        "max_tokens": limits, "ignore_eos": True, "passes": bench.passes, "batch": batch,
        "device": "cuda:0" if bench.on_gpu else "cpu",
    }  # fmt: skip
    name = f"throughput-{engine}"
    wanted = bare(asked, bench.folder / name / "bare", OFFLINE)
    samplings = [Sampling(max_tokens=limit, temperature=0.0, ignore_eos=True) for limit in limits]
    prompts = [row["prompt"] for row in rows]
    with hosted(bench.config(engine, model, "bfloat16", **own), bench.folder / name, OFFLINE) as (host, ready):
        one_pass(host, prompts[:8], samplings[:8])
        passes = [one_pass(host, prompts, samplings) for _ in range(bench.passes)]
    spans_s = [span for _, span in passes]
    failed = [answer.message for answers, _ in passes for answer in answers if answer.code]
    total = sum(limits)
    return {
        "rows": len(rows),
        "tokens": total,
        "failed": len(failed),
        "first_failure": failed[:1],
        "spans_s": spans_s,
        "bare_spans_s": wanted["spans_s"],
        "tokens_per_s": total / median(spans_s),
        "bare_tokens_per_s": total / median(wanted["spans_s"]),
        "ratio": median(wanted["spans_s"]) / median(spans_s),
        "library": wanted["library"],
        "slots": ready.capacity.slots,
        "kv_tokens": ready.capacity.kv_tokens,
        "facts": ready.capacity.facts,
    }


Check = tuple[str, str, Callable[[Bench], dict[str, Any]], Callable[[dict[str, Any]], bool]]


def same(found: dict[str, Any]) -> bool:
    return bool(found["differing"] == 0)


def fast(found: dict[str, Any]) -> bool:
    return bool(found["failed"] == 0 and found["ratio"] >= LEAST_RATIO)


def reported(_: dict[str, Any]) -> bool:
    """Reported, not required."""
    return True


INVARIANT = {**OFFLINE, "VLLM_BATCH_INVARIANT": "1"}
# transformers in slots multiplies and attends in other shapes than a lone prompt; float32 hides that, TF32 is off.
CHECKS: tuple[Check, ...] = (
    ("transformers-float32-batched", "transformers",
     lambda bench: greedy(bench, "transformers", "float32", "tf32b", OFFLINE), same),
    ("transformers-bfloat16-alone", "transformers",
     lambda bench: greedy(bench, "transformers", "bfloat16", "tbf1", OFFLINE, max_num_seqs=1), same),
    ("transformers-bfloat16-batched", "transformers",
     lambda bench: greedy(bench, "transformers", "bfloat16", "tbfb", OFFLINE), reported),
    ("vllm-bfloat16-alone", "vllm",
     lambda bench: greedy(bench, "vllm", "bfloat16", "vbf1", OFFLINE, max_num_seqs=1), same),
    ("vllm-bfloat16-batched", "vllm",
     lambda bench: greedy(bench, "vllm", "bfloat16", "vbfb", OFFLINE), reported),
    ("vllm-batch-invariant", "vllm",
     lambda bench: greedy(bench, "vllm", "bfloat16", "vinv", INVARIANT), reported),
    ("transformers-throughput", "transformers", lambda bench: throughput(bench, "transformers"), fast),
    ("vllm-throughput", "vllm", lambda bench: throughput(bench, "vllm"), fast),
)  # fmt: skip


def run(bench: Bench, only: str | None, names: Sequence[str]) -> list[dict[str, Any]]:
    results = []
    for name, engine, check, holds in CHECKS:
        if (only and engine != only) or (names and name not in names):
            continue
        try:
            found = check(bench)
            result = {"check": name, "ok": holds(found), "required": holds is not reported, **found}
        except Exception as error:  # one check that can't run must not hide what the others say
            traceback.print_exc()
            result = {
                "check": name,
                "ok": holds is reported,
                "required": holds is not reported,
                "error": str(error)[-2000:],
            }
        results.append(result)
        keys = ("differing", "prompts", "ratio", "tokens_per_s", "bare_tokens_per_s", "error")
        print(name, "ok" if result["ok"] else "FAILED", {key: result[key] for key in keys if key in result}, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("check_engines.json"))
    parser.add_argument("--only", choices=("transformers", "vllm"))
    parser.add_argument("--check", action="append", default=[], choices=[name for name, *_ in CHECKS])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="fewer prompts and rows, one pass")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-gpu-") as folder:
        results = run(Bench(Path(folder), options.device, options.quick), options.only, options.check)
    import torch

    device = torch.cuda.get_device_name(0) if options.device == "gpu" and torch.cuda.is_available() else "cpu"
    facts = {"device": device, "python": sys.version.split()[0], "torch": torch.__version__, "quick": options.quick}
    options.out.write_text(json.dumps({**facts, "results": results}, indent=1))
    sys.exit(0 if all(result["ok"] for result in results) else 1)


if __name__ == "__main__":
    main()

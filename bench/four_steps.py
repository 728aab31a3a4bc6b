"""Four generate steps with one model, 100 rows, 16 tokens each: Penstock beside distilabel on the same Transformers.

Both get the same 27M-parameter model in bfloat16, the same rows and prompts, greedy sampling, the same Transformers
version. Wall time is that of the whole command, start and loading included; memory the peak of all its processes
together (PSS). distilabel runs at its defaults, at the best that its settings give, and with its engine changed so
that the Transformers pipeline batches, for which it has no setting: see peers/distilabel_four_steps.py.

Needs PENSTOCK_DISTILABEL_PYTHON, an environment with distilabel 1.5.3 (`make distilabel-env`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import Figure, Watch, end_tree, main, run_pipeline, say, work_folder, write_jsonl

HERE = Path(__file__).resolve().parent
TEXT = "the quick brown fox jumps over the lazy dog and runs into the forest before night falls on the old mill"


def pipeline(model: Path, source: Path, steps: int, max_tokens: int) -> dict[str, Any]:
    def step(number: int) -> dict[str, Any]:
        return {
            "model": "lm",
            "prompt": f"Part {number}: {{{{ text }}}}",
            "output": f"answer_{number}",
            "max_tokens": max_tokens,
            "temperature": 0.0,
        }

    return {
        "models": {"lm": {"ref": str(model), "engine": "transformers", "dtype": "bfloat16"}},
        "source": {"path": str(source)},
        "steps": [{"generate": step(number)} for number in range(steps)],
        "sink": {"path": "unused"},
    }


def distilabel(python: str, folder: Path, settings: str, *sizes: object) -> tuple[float, int, dict[str, Any]]:
    """(wall seconds, peak bytes, its facts) of one run at the named settings."""
    facts, log = folder / f"{settings}.json", folder / f"{settings}.log"
    script = str(HERE / "peers" / "distilabel_four_steps.py")
    command = [python, script, *map(str, sizes), settings, str(facts)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    began = time.monotonic()
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=env)
        watch = Watch(process.pid, tree=True)
        try:
            code = process.wait()
            wall_s = time.monotonic() - began
        finally:
            watch.stop()
            end_tree(process.pid)
    if code != 0:
        sys.exit(f"distilabel ({settings}) ended with {code}:\n{log.read_text(errors='replace')[-3000:]}")
    return wall_s, watch.tree_bytes, json.loads(facts.read_text())


def measure(arguments: argparse.Namespace) -> list[Figure]:
    python = os.environ.get("PENSTOCK_DISTILABEL_PYTHON") or sys.exit(
        "PENSTOCK_DISTILABEL_PYTHON is not set: `make distilabel-env` makes an environment with distilabel"
    )
    with work_folder() as folder:
        model = folder / "model"
        subprocess.run([sys.executable, str(HERE / "make_model.py"), str(model)], check=True, stdout=sys.stderr)
        rows = [{"id": n, "text": TEXT[: 10 + 9 * n % len(TEXT)]} for n in range(arguments.rows)]
        source = write_jsonl(folder / "rows.jsonl", rows)
        sizes = (arguments.steps, arguments.tokens)
        ours = run_pipeline(folder, pipeline(model, source, *sizes), tree=True)
        pool = ours.pool
        facts = {"loads": pool["loads"], "tokens": pool["tokens_out"]}
        say(f"penstock: {ours.wall_s:.1f} s, {ours.tree_bytes / 1e9:.2f} GB, {facts}")
        theirs = {}
        for settings in ("subclassed", "settings", "defaults"):
            wall_s, peak, facts = distilabel(python, folder, settings, model, source, *sizes)
            theirs[settings] = (wall_s, peak, facts["loads"])
            say(f"distilabel, {settings}: {wall_s:.1f} s, {peak / 1e9:.2f} GB, {facts}")
    name, replicas = "four steps", len(pool["replicas"])
    figures = [Figure(name, "loads / replicas", f"{pool['loads']} / {replicas}", "equal", pool["loads"] == replicas)]
    for settings, what in (("defaults", "its defaults"), ("settings", "its best settings")):
        wall, memory = ours.wall_s / theirs[settings][0], ours.tree_bytes / theirs[settings][1]
        figures += [
            Figure(
                name,
                f"wall time / distilabel's at {what} ({theirs[settings][2]} loads)",
                f"{wall:.3f}",
                "<= 0.20",
                wall <= 0.2,
            ),
            Figure(name, f"peak memory / distilabel's at {what}", f"{memory:.3f}", "<= 0.50", memory <= 0.5),
        ]
    wall, memory = ours.wall_s / theirs["subclassed"][0], ours.tree_bytes / theirs["subclassed"][1]
    figures.append(
        Figure(name, "wall time, memory / distilabel's with its engine subclassed", f"{wall:.3f}, {memory:.3f}")
    )
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=100, steps=4, tokens=16)

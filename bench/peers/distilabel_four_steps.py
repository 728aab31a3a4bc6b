"""distilabel 1.5.3: K text generation steps with one model on its Transformers engine. Started by bench/four_steps.py.

    python distilabel_four_steps.py MODEL ROWS.jsonl STEPS MAX_TOKENS SETTINGS FACTS.json

defaults    its own batch sizes and threads
settings    the best that its settings give: all rows in one batch, one thread for each of the steps' processes
subclassed  besides, the Transformers pipeline set to batch, for which distilabel has no setting: its engine changed

Writes {"loads", "rows", "tokens_of_last_step"}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from distilabel.models.llms import TransformersLLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

PIPELINE_BATCH = 32


class CountedLLM(TransformersLLM):  # type: ignore[misc]
    """Each step loads it in a process of its own; a line in a file counts the load."""

    def load(self) -> None:
        super().load()
        with Path(os.environ["LOADS_FILE"]).open("a") as file:
            file.write("load\n")


class BatchingLLM(CountedLLM):
    def load(self) -> None:
        super().load()
        self._pipeline._batch_size = PIPELINE_BATCH
        self._pipeline.tokenizer.padding_side = "left"


def main() -> None:
    model, rows_file, steps, max_tokens, settings, facts = sys.argv[1:7]
    os.environ["LOADS_FILE"] = f"{facts}.loads"
    if settings != "defaults":
        os.environ["OMP_NUM_THREADS"] = "1"
    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    tuned = settings != "defaults"
    engine = BatchingLLM if settings == "subclassed" else CountedLLM
    sampling = {"max_new_tokens": int(max_tokens), "do_sample": False, "repetition_penalty": 1.0}
    with Pipeline(name="steps") as pipeline:
        last: Any = LoadDataFromDicts(data=rows, **({"batch_size": len(rows)} if tuned else {}))
        for number in range(int(steps)):
            step = TextGeneration(
                name=f"step_{number}",
                llm=engine(model=model, torch_dtype="bfloat16", generation_kwargs=sampling),
                template=f"Part {number}: {{{{ text }}}}",
                columns=["text"],
                output_mappings={"generation": f"answer_{number}", "model_name": f"model_{number}"},
                **({"input_batch_size": len(rows)} if tuned else {}),
            )
            last >> step
            last = step
    made = pipeline.run(use_cache=False)["default"]["train"]
    assert all(row[f"answer_{k}"] is not None for row in made for k in range(int(steps)))
    kept = f"statistics_step_{int(steps) - 1}"  # each step's metadata replaces that of the step before
    tokens = sum(row["distilabel_metadata"][kept]["output_tokens"] for row in made)
    loads = len(Path(os.environ["LOADS_FILE"]).read_text().split())
    Path(facts).write_text(json.dumps({"loads": loads, "rows": len(made), "tokens_of_last_step": tokens}))


if __name__ == "__main__":
    main()

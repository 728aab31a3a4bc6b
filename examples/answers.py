"""answers.yaml in Python: python examples/answers.py [OUTPUT_FOLDER]"""

from __future__ import annotations

import sys

import penstock as ps


def main(out: str) -> None:
    writer = ps.Model("mock:writer", replicas=2)
    rows = ps.read("examples/questions.jsonl")
    rows = rows.generate(writer, prompt="Answer briefly: {{ question }}", output="answer", max_tokens=12)
    result = rows.write(out).run()
    print(result.summary["rows"])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "out/answers-python")

"""A model without a pipeline: two replicas, one blocking call, one with results as they finish.

python examples/pool.py
"""

import penstock as ps

llm = ps.Model("mock:writer", engine_options={"ms_per_token": 5})

with ps.launch(llm, replicas=2) as pool:
    for generation in pool.generate(["Why is the sky blue?", "What is a penstock?"], max_tokens=8):
        print(generation.text)
    for index, generation in pool.as_completed([f"Question {number}?" for number in range(4)], max_tokens=8):
        print(index, generation.tokens_out, "tokens")
    for replica in pool.stats()["replicas"]:
        print(replica["id"], replica["state"], replica["answered"], "answered")

"""Every mistake in a file: one sentence, the right line, the nearest right name."""

from __future__ import annotations

import pytest
from spec_support import FILE, HEAD, ONE_STEP, load, refused

from penstock.spec.yaml_text import read_yaml

GOOD = HEAD + ONE_STEP

TEXTS = {
    "": f"{FILE}: the file is empty; a pipeline has models, source, steps and sink",
    "# only a comment\n": f"{FILE}: the file is empty; a pipeline has models, source, steps and sink",
    "- a\n": f"{FILE}:1: expected a mapping with source, steps and sink, got ['a']",
    "just text": f"{FILE}:1: expected a mapping with source, steps and sink, got 'just text'",
    "models:\n\twriter: x\n": f"{FILE}:2: a tab; YAML is indented with spaces",
    "a: 1\n---\nb: 1\n": f"{FILE}:2: a second document ('---'); a pipeline file holds one",
    "a: &x [*x]\n": f"{FILE}:1: an alias that contains itself",
    "a: \x01\n": f"{FILE}:1: the character '\\x01' is not allowed in YAML",
    "a:\n  b: [1, 2\n": f"{FILE}:3: not valid YAML: while parsing a flow sequence: "
    "expected ',' or ']', but got '<stream end>'",
    "[" * 5000: f"{FILE}: nested deeper than 64 levels",
    "a: " + "[" * 100 + "]" * 100: f"{FILE}:1: nested deeper than 64 levels",
    'a: "\\UFFFFFFFF"\n': f"{FILE}:1: not valid YAML: Python int too large to convert to C int",
}


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_is_no_pipeline(text: str) -> None:
    assert refused(text) == [TEXTS[text]]


def test_a_character_that_was_escaped_in_two_halves_as_json_does_it() -> None:
    document = read_yaml('{"\\ud83d\\ude00": ["a\\ud83d\\ude00\\u00e9"]}', FILE)
    assert (document.data, document.errors) == ({"\U0001f600": ["a\U0001f600é"]}, [])


def test_alias_bomb() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (message,) = refused("\n".join(lines))
    assert message.endswith("more than 50,000 values once aliases are followed")


REPLACED = [  # (what stands in a good file, what stands there instead, the lines of the error)
    ("source: q", "sorce: q", ["1: the pipeline needs 'source'", "4: unknown key 'sorce'; did you mean 'source'?"]),
    ('{ref: "mock:writer"}', '"mock:writer"', ["2: expected a mapping, got 'mock:writer'; write {ref: mock:writer}"]),
    ('{ref: "mock:writer"}', "{rf: a}", ["2: model needs 'ref'", "2: unknown key 'rf' in model; did you mean 'ref'?"]),
    ('"mock:writer"', '"mock:writer", name: b', ["2: 'name': a model's key is its name; leave it out"]),
    ('"mock:writer"', "3", ["2: 'ref': expected text, got 3"]),
    ('"mock:writer"', 'a, replicas: "2"', ["2: 'replicas': expected a whole number of at least 1 or 'auto', got '2'"]),
    (
        '"mock:writer"',
        "a, replicas: true",
        ["2: 'replicas': expected a whole number of at least 1 or 'auto', got True"],
    ),
    ('"mock:writer"', "a, engine: vlm", ["2: 'engine': unknown value 'vlm'; did you mean 'vllm'?"]),
    ('"mock:writer"', "a, engine: mock", ["2: 'ref': the mock engine takes mock:NAME, got 'a'"]),
    (
        '"mock:writer"',
        '"mock:a", engine_options: {ms_per_rows: 2}',
        ["2: unknown option 'ms_per_rows' of the mock engine; did you mean 'ms_per_row'?"],
    ),
    (
        '"mock:writer"',
        '"mock:a", engine_options: {slots: 1.5}',
        ["2: 'slots': expected a whole number of at least 1, got 1.5"],
    ),
    ('"mock:writer"', "a, dtype: bf16", ["2: 'dtype': unknown value 'bf16'; did you mean 'bfloat16'?"]),
    ("  vectors", "  writer", ["3: duplicate key 'writer'; first used in line 2"]),
    ("  vectors", '  "v\\ud800"', ["3: 'v\\ud800' contains a lone surrogate"]),
    ("task: embed", "task: !!python/name:os.system x", ["3: unsafe tag '!!python/name:os.system'"]),
    ("source: q", "source: !!python/object/new:os.system q", ["4: unsafe tag '!!python/object/new:os.system'"]),
    ("source: q", "source: !mine q", ["4: unsafe tag '!mine'"]),
    ("source: questions.jsonl", "source: 3", ["4: 'source': expected a mapping, got 3"]),
    ("source: questions.jsonl", "source: []", ["4: 'path': expected a path or a list of paths, got []"]),
    ("source: questions.jsonl", "source: {format: json, path: a}", ["4: 'format': unknown value 'json'; did you mean"]),
    ("source: questions.jsonl", "source: {}", ["4: source takes exactly one of 'path' and 'rows'"]),
    ("sink: out", "sink: {path: out, order: inptu}", ["5: 'order': unknown value 'inptu'; did you mean 'input'?"]),
    ("sink: out", "sink: out\nmax_dead: 1.5", ["6: 'max_dead': expected a count of rows"]),
    ("sink: out", "sink: out\nmax_dead: true", ["6: 'max_dead': expected a count of rows"]),
    ("sink: out", "sink: out\ncommit_every_s: 0", ["6: 'commit_every_s': expected seconds above 0, got 0"]),
    ("sink: out", "sink: out\nwindow: {row: 3}", ["6: unknown key 'row' in window; did you mean 'rows'?"]),
    (
        "sink: out",
        "sink: out\nresources: {reserve: {per_nod: 1}}",
        ["6: unknown key 'per_nod' in 'reserve'; did you mean 'per_node'?"],
    ),
    ("steps:\n", "steps:\n  - generate\n", ["7: expected one step such as '- filter: {expr: ...}', got 'generate'"]),
    ("- generate:", "- generat:", ["7: unknown step 'generat'; did you mean 'generate'?"]),
    ("- generate:", "- score:", ["7: step 'score' is not supported yet"]),
    ("model: writer", "model: writr", ["7: 'model': no model is named 'writr'; did you mean 'writer'?"]),
    ("model: writer", "model: vectors", ["7: 'model': 'vectors' has task embed, and this step needs task generate"]),
    ("prompt:", "promt:", ["7: unknown key 'promt' in generate; did you mean 'prompt'?"]),
    ("output: answer", "output: [a]", ["7: 'output': expected a name, got ['a']"]),
    ("output: answer", "otput: answer", ["7: generate needs 'output'", "7: unknown key 'otput' in generate; did you"]),
    ("output: answer", "output: a, messages: []", ["7: generate takes exactly one of 'prompt' and 'messages'"]),
    ('"{{ question }}"', "{{ question }}", ["7: a list or mapping as a key; put quotes around a text that begins"]),
    ("{{ question }}", "{{ question", ["7: 'prompt': not a valid template: unexpected end of template"]),
    (
        "{{ question }}",
        "{{ question }",
        ["7: 'prompt': not a valid template: unexpected '}'; write a column as {{ column }}"],
    ),
    (
        "{{ question }}",
        "{{ question | lenght }}",
        ["7: 'prompt': not a valid template: No filter named 'lenght'; did you mean 'length'?"],
    ),
    ("{{ question }}", "{% include 'x' %}", ["7: 'prompt': a template can't include, import or extend another one"]),
    ("{{ question }}", "{{ question | shout }}", ["7: 'prompt': not a valid template: No filter named 'shout'"]),
    ("output: answer", "output: a, max_tokens: 0", ["7: 'max_tokens': expected a whole number of at least 1, got 0"]),
    (
        "output: answer",
        "output: a, max_tokens: 1.5",
        ["7: 'max_tokens': expected a whole number of at least 1, got 1.5"],
    ),
    ("output: answer", "output: a, top_p: 0", ["7: 'top_p': expected a number above 0 and of at most 1, got 0"]),
    ("output: answer", "output: a, temperature: .nan", ["7: 'temperature': expected a number of at least 0, got nan"]),
    ("output: answer", 'output: a, seed: "{{ x"', ["7: 'seed': not a valid template"]),
    (
        "output: answer",
        "output: a, n: 0",
        ["7: 'n': expected a whole number of at least 1 and of at most 16384, got 0"],
    ),
    ("output: answer", "output: a, meta: 1", ["7: 'meta': expected true or false, got 1"]),
    ("output: answer", "output: a, stop: ['']", ["7: 'stop': expected a text or a list of texts, none of them empty"]),
    ("output: answer", "output: a, min_tokens: 9, max_tokens: 3", ["7: 'min_tokens' is 9, above 'max_tokens' 3"]),
    ("output: answer", "output: a, name: source", ["7: 'name': 'source' is reserved for the source"]),
    ("output: answer", "output: a, from: nowhere", ["7: 'from': no step is named 'nowhere'"]),
]


@pytest.mark.parametrize(("old", "new", "expected"), REPLACED)
def test_a_mistake_in_a_file(old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    lines = refused(GOOD.replace(old, new, 1))
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"{FILE}:{start}"), lines


STEPS = [  # (steps, the lines of the error); the first step stands in line 7
    ("  - filter: {}\n", ["7: filter takes exactly one of 'expr' and 'function'"]),
    (
        "  - filter: {expr: '{{ a }}'}\n",
        ["7: 'expr': not a valid expression: expected token ':', got '}'; write an expression without {{ and }}"],
    ),
    ("  - filter: {expr: 'a |'}\n", ["7: 'expr': not a valid expression: unexpected end of template"]),
    ("  - filter: {expr: 'a', name: a b}\n", ["7: 'name': expected a name without spaces"]),
    ("  - map: {}\n", ["7: map needs 'function'"]),
    ("  - map: {function: add}\n", ["7: 'function': expected module:function, for instance"]),
    ("  - map: {function: 'a:b', timeout_s: -1}\n", ["7: 'timeout_s': expected seconds above 0, got -1"]),
    ("  - map: {function: 'a:b', columns: [a, a]}\n", ["7: 'columns': expected each name once, got ['a', 'a']"]),
    ("  - map: {function: 'a:b', versio: 1}\n", ["7: unknown key 'versio' in map; did you mean 'version'?"]),
    ("  - expand: {column: a, function: 'a:b'}\n", ["7: expand takes exactly one of 'function' and 'column'"]),
    ("  - expand: {column: a, output: a}\n", ["7: 'output': the list column 'a' is kept"]),
    ("  - embed: {model: vectors, output: v}\n", ["7: embed needs 'text'"]),
    ("  - embed: {model: writer, text: a, output: v}\n", ["7: 'model': 'writer' has task generate, and this step"]),
    ("  - filter: {expr: a, name: x}\n  - filter: {expr: b, name: x}\n", ["8: two steps are named 'x'"]),
    ("  - filter: {expr: a, from: filter-2}\n  - filter: {expr: b}\n", ["7: 'from': step 'filter-2' is not above"]),
    ("  - filter: {expr: a}\n  - filter: {expr: b, from: filtr}\n", ["8: 'from': no step is named 'filtr'; did you"]),
    ("  - filter: {expr: a}\n  - filter: {expr: b, from: source}\n", ["7: step 'filter' is a dead end"]),
    ("  - filter: {expr: a}\n  - join: {with: filter}\n", ["8: 'with': is the same branch as 'from'"]),
    (
        "  - generate:\n      model: writer\n      messages:\n        - {role: usr, content: a}\n      output: o\n",
        ["10: 'role': unknown value 'usr'; did you mean 'user'?"],
    ),
    (
        "  - generate:\n    model: writer\n    output: o\n",
        ["7: expected one step such as '- filter: {expr: ...}', got the keys generate, model, output; indent the keys"],
    ),
    (
        ONE_STEP + '  - generate: {model: writer, prompt: "{{ answer }}", output: answer}\n',
        ["8: column 'answer' is already produced by step 'generate'; choose another name"],
    ),
    (
        "  - generate: {model: writer, prompt: a, output: a, meta: true}\n"
        "  - map: {function: 'm:f', columns: [a]}\n"
        "  - generate: {model: writer, prompt: a, output: a_meta}\n",
        ["9: column 'a_meta' is already produced by step 'generate'; choose another name"],
    ),
    (
        "  - filter: {expr: a, name: left}\n"
        "  - expand: {column: b, from: source, name: right}\n"
        "  - join: {from: left, with: right}\n",
        ["9: 'join' can't join a branch with an expand ('right')"],
    ),
    (
        "  - map: {function: 'm:f', name: left}\n"
        "  - filter: {expr: b, from: source, name: right}\n"
        "  - join: {from: left, with: right}\n",
        ["7: 'left' is above a join and needs `columns: [...]`, the columns that it adds"],
    ),
    (
        "  - map: {function: 'm:f', name: first, columns: [a]}\n"
        "  - map: {function: 'm:f', name: left, columns: [a]}\n"
        "  - filter: {expr: b, from: first, name: right}\n"
        "  - join: {from: left, with: right}\n",
        ["8: 'left' overwrites column 'a' of step 'first' in one branch of 'join' only; choose another name"],
    ),
    (
        "  - map: {function: 'm:f', name: left, columns: [a]}\n"
        "  - map: {function: 'm:f', name: right, from: source, columns: [a]}\n"
        "  - join: {from: left, with: right}\n",
        ["8: column 'a' is already produced by step 'left'; choose another name"],
    ),
    (
        "  - filter: {expr: b, name: left}\n  - join: {from: left, with: source}\n",
        ["8: 'join' joins the source itself, whose columns are in every branch; name two steps"],
    ),
]


@pytest.mark.parametrize(("steps", "expected"), STEPS)
def test_a_mistake_in_steps(steps: str, expected: list[str]) -> None:
    lines = refused(HEAD + steps)
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"{FILE}:{start}"), lines


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = GOOD.replace("mock:writer", "mock:").replace("sink: out", "sink: {pth: out}").replace("prompt:", "promt:")
    assert [line.split(" ")[0] for line in refused(text)] == [f"{FILE}:{line}:" for line in (2, 5, 5, 7)]


def test_a_mistake_in_a_value_that_an_alias_brings_is_told_where_it_stands() -> None:
    text = GOOD.replace('writer: {ref: "mock:writer"}', "base: &base\n    ref: mock:a\n    replica: 2\n  writer: *base")
    assert refused(text) == [f"{FILE}:4: unknown key 'replica' in model; did you mean 'replicas'?"]


def test_merge_keys() -> None:
    head = HEAD.replace(
        'writer: {ref: "mock:writer"}',
        'writer: &base {ref: "mock:writer", replicas: 2}\n  other: {<<: *base, ref: "mock:other"}',
    )
    other = load(head=head).models["other"]
    assert (other.ref, other.replicas) == ("mock:other", 2)


def test_scalars_are_of_yaml_1_2() -> None:
    steps = "  - generate: {model: writer, prompt: no, output: on, temperature: 1e-1, max_tokens: 0x10}\n"
    step = load(steps).steps[0]
    assert (step.prompt, step.output, step.temperature, step.max_tokens) == ("no", "on", 0.1, 16)  # type: ignore[union-attr]

"""Whatever the text: a pipeline, or a ConfigError with a place."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_support import FILE, HEAD, ONE_STEP

from penstock.errors import ConfigError
from penstock.spec.load import load_pipeline

GOOD = HEAD + ONE_STEP + "  - map: {function: 'm:f', columns: [x]}\n  - filter: {expr: x}\n"
PIECES = ["models:", "source:", "steps:", "sink:", "generate:", "- ", "  ", "\n", "\t", "{", "}", "[", "]", "a"]
PIECES += ["&x ", "*x", "<<: ", "'", '"', "!!python/object:a ", ": ", "null", "1", "{{ a }}", "#", "|", ">", "---"]
PIECES += ["? ", "%", "@", "\\"]
TOKENS = st.sampled_from(PIECES)


def only_config_errors(text: str, sets: tuple[str, ...] = ()) -> None:
    try:
        load_pipeline(text, FILE, sets)
    except ConfigError as error:
        assert error.where is not None and error.message


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    only_config_errors(text)


@given(st.lists(TOKENS, max_size=30).map("".join))
def test_pieces_of_yaml(text: str) -> None:
    only_config_errors(text)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(GOOD)), st.integers(0, 20), st.lists(TOKENS, max_size=3).map("".join))
def test_a_good_file_with_a_wound(start: int, length: int, piece: str) -> None:
    only_config_errors(GOOD[:start] + piece + GOOD[start + length :])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["models", "models.writer", "models.writer.engine_options", "source", "source.path", "source.schema", "sink"]
KEYS += ["steps", "steps.0", "steps.generate.messages", "steps.generate.stop", "steps.map.columns", "steps.filter.expr"]
KEYS += ["resources", "resources.reserve", "window", "seed", "max_dead", "steps.generate.model", "steps.map.version"]


@given(st.sampled_from(KEYS), values)
def test_any_value_in_any_place(key: str, value: object) -> None:
    import json

    only_config_errors(GOOD, (f"{key}={json.dumps(value)}",))


@given(st.text(max_size=30))
def test_any_override(setting: str) -> None:
    only_config_errors(GOOD, (setting,))

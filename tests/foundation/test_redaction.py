"""Keys and rows are taken out of text, however they are written there; text without them stays as it is."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.redaction import (
    MASK,
    Redactor,
    masked,
    secrets_of_url,
    shown_setting,
    shown_url,
    without_secrets,
)

KEY = "sk-Qm7Zx4Lw9Vb2"
PROMPT = "The patient Zebulon Quirk was seen\non the ward; his number is 55-1234."

ESCAPES = {
    "as it is": lambda text: text,
    "upper case": str.upper,
    "lower case": str.lower,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with \\u for every character": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "JSON twice": lambda text: json.dumps(json.dumps(text)),
    "URL": lambda text: quote(text, safe=""),
    "URL with every character": lambda text: "".join(f"%{ord(each):02X}" for each in text),
    "HTML": html.escape,
    "HTML with every character": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "JSON of HTML": lambda text: json.dumps(html.escape(text)),
    "\\x": lambda text: "".join(f"\\x{ord(each):02x}" for each in text),
    "wrapped": lambda text: "\n  ".join(text[place : place + 7] for place in range(0, len(text), 7)),
    "spaced out": " ".join,
    "repr": repr,
}


def folded(text: str) -> str:
    return "".join(each for each in text.lower() if each.isalnum())


def shares(shown: str, secret: str, run: int) -> bool:
    shown, secret = folded(shown), folded(secret)
    return any(secret[place : place + run] in shown for place in range(len(secret) - run + 1))


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("part", [slice(None), slice(0, 40), slice(10, 45), slice(-30, None)])
def test_a_prompt_is_taken_out_in_any_escape(name: str, part: slice) -> None:
    words = f"can't answer '{ESCAPES[name](PROMPT[part])}' today"
    shown = Redactor().redacted(words, [PROMPT])
    assert "[prompt]" in shown and "answer" in shown
    assert not shares(shown, PROMPT, 16)


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("part", [slice(None), slice(0, 9), slice(5, None)])
def test_a_key_is_taken_out_in_any_escape(name: str, part: slice) -> None:
    shown = Redactor([KEY]).redacted(f"bad key {ESCAPES[name](KEY[part])} given", [PROMPT])
    assert "[key]" in shown and shown.startswith("bad key")
    assert not shares(shown, KEY, 5)


@pytest.mark.parametrize(
    "words",
    [
        "Incorrect API key provided: sk-Qm7Z********9Vb2.",
        "key sk-...Vb2 is not known",
        "key sk-Q***** is not known",
        "key *******Vb2 is not known",
        'the header "Authorization: Bearer sk-Qm7Zx4Lw9Vb2" is wrong',
    ],
)
def test_the_ends_that_a_service_leaves_of_a_key_are_taken_out(words: str) -> None:
    shown = Redactor([KEY]).redacted(words)
    assert "sk-" not in shown and "Vb2" not in shown


def test_halves_of_characters_that_were_escaped_one_by_one_are_put_together() -> None:
    row = "Ask 𠮷𠮷𠮷𠮷 about the weather 😀 tomorrow"
    told = Redactor().redacted(f"bad prompt: {json.dumps(row)}, and a half: \\ud83d", [row])
    assert told == 'bad prompt: "[prompt]", and a half: \ufffd'
    told.encode()


ESCAPED = st.sampled_from(["\\ud83d", "\\\\ude00", "&#xd83d;", "%ED%A0%80", "\\xff", "a", " "])


@given(st.lists(ESCAPED), st.text(st.characters(codec="utf-8"), min_size=16))
def test_what_is_left_can_be_written(pieces: list[str], row: str) -> None:
    words = "".join(pieces)
    Redactor(["sk-0123456789"]).redacted(f"{words} {json.dumps(row)} sk-0\\x3123456789 {words}", [row]).encode()


def test_a_short_value_of_a_row_is_taken_out_whole() -> None:
    assert Redactor().redacted("invalid literal for int(): 'abcd'", ["abcd", "x"], "[row]") == (
        "invalid literal for int(): '[row]'"
    )


def test_other_words_stay() -> None:
    words = "This model's maximum context length is 8192 tokens. However, you requested 9000 (see https://x.y/docs)."
    assert Redactor([KEY]).redacted(words, [PROMPT]) == words
    escaped = r"the value 100% of C:\new &amp; \u0041 is wrong"
    assert Redactor([KEY]).redacted(escaped, [PROMPT]) == escaped  # nothing is hidden in them


def test_a_long_message_is_cut_and_a_giant_row_leaves_it_out() -> None:
    shown = Redactor([KEY]).redacted("no " * 9000 + PROMPT, [PROMPT])
    assert len(shown) < 8200 and "Zebulon" not in shown
    assert "left out" in Redactor().redacted("refused: abc", ["x" * 2_000_001])


@given(st.text(max_size=60), st.text(min_size=17, max_size=80), st.text(max_size=60))
def test_no_run_of_a_row_is_left(before: str, row: str, behind: str) -> None:
    shown = Redactor().redacted(before + row + behind, [row], "\0")
    assert all(len(folded(row)) < 16 or not shares(piece, row, 16) for piece in shown.split("\0"))


URLS = {
    "http://h:8000/v1": "http://h:8000/v1",
    "http://[::1]:8000/v1": "http://[::1]:8000/v1",
    "http://h/v1?api-key=S3CRET": f"http://h/v1?api-key={MASK}",
    "http://h/v1?api-version=2024-02-01&sig=S3CRET&t=S3CRET": f"http://h/v1?api-version=2024-02-01&sig={MASK}&t={MASK}",
    "http://h/v1?S3CRET": f"http://h/v1?{MASK}",
    "http://h/v1#S3CRET": f"http://h/v1#{MASK}",
    "http://u:S3CRET@h/v1": f"http://{MASK}@h/v1",
    "http://S3CRET@h:80/v1": f"http://{MASK}@h:80/v1",
    "http://u:a/S3CRET@h/v1": f"http://{MASK}@h/v1",
    "http://u:S3CRET?x@h/v1": f"http://{MASK}?{MASK}",
    "http://u:12/S3CRET@h:80/v1": f"http://{MASK}@h:80/v1",
    "http://h:80/accounts/@cf/v1": "http://h:80/accounts/@cf/v1",
    "http://h/v1;key=S3CRET": f"http://h/v1;{MASK}",
    "http://h/v1%3Fapi-key=S3CRET": f"http://h/v1%3F{MASK}",
    "http://h/v1?api-version=1;key=S3CRET": f"http://h/v1?api-version={MASK}",
    "http://u:S3CRET#x@h/v1": f"http://{MASK}#{MASK}",
    "u:S3CRET@h/v1": f"{MASK}@h/v1",
    "h/v1?key=S3CRET": f"h/v1?key={MASK}",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_shown_without_its_keys(url: str) -> None:
    assert shown_url(url) == URLS[url]
    assert shown_url(URLS[url]) == URLS[url]
    if "S3CRET" in url:
        assert any("S3CRET" in secret for secret in secrets_of_url(url))
    if "://" in url:
        assert "S3CRET" not in without_secrets(f"can't reach {url}, (see '{url}') or [{url}]")


@given(st.text())
def test_any_text_can_be_shown_as_a_url(text: str) -> None:
    shown = shown_url(text)
    assert shown_url(shown) == shown
    assert without_secrets(without_secrets(text)) == without_secrets(text)


@pytest.mark.parametrize(
    "setting",
    [
        "models.m.base_url=http://h/v1?key=S3CRET",
        "models.m.base_url=h/v1?key=S3CRET",
        "models.m.base_url=[http://h/v1, http://u:S3CRET@h/v1]",
        "models.m.base_url=http://h/v1?key=a'S3CRET",
        'models.m.base_url=http://h/v1?key=a"S3CRET',
        "models.m.base_url=http://h/v1?key=a S3CRET",
        "models.m.base_url=http://h/v1?key=a\nS3CRET",
        "models.m.base_url=http://u:a'S3CRET@h/v1",
        "models.m.base_url=['http://h/v1?key=S3CRET', \"http://h/v1?key=a'S3CRET\"]",
        "models.m.base_url=[http://h/v1?key=a,S3CRET]",
        'models.m={base_url: "http://h/v1?key=a\'S3CRET"}',
        'models={m: {base_url: "http://h/v1?key=a S3CRET"}}',
        "models.m.engine_options.extra_body.api_key=S3CRET",
        "models.m.engine_options={extra_body: {api_key: S3CRET}, retries: 1}",
        "models.m.engine_options={extra_body: {'password': 'S3CRET'}}",
    ],
)
def test_a_setting_is_shown_without_its_key(setting: str) -> None:
    shown = shown_setting(setting)
    assert "S3CRET" not in shown and MASK in shown and shown.partition("=")[0] == setting.partition("=")[0]


@pytest.mark.parametrize(
    "setting",
    [
        "steps.generate.max_tokens=64",
        "models.m.engine_options.api_key_env=MY_KEY",
        "models.m.engine_options.headers_env.Authorization=MY_KEY",
        "source.path=a?b=c.jsonl",
        "nothing",
    ],
)
def test_another_setting_is_shown_as_it_is(setting: str) -> None:
    assert shown_setting(setting) == setting


def test_plain_data_is_masked_by_names_and_urls() -> None:
    data = {
        "base_url": ["http://h/v1?k=S3CRET"],
        "engine_options": {
            "extra_body": {"api_key": "S3CRET", "max_tokens": 3, "nested": [{"Client-Secret": "S3CRET"}]},
            "headers_env": {"Authorization": "MY_KEY"},
        },
    }
    assert masked(data) == {
        "base_url": [f"http://h/v1?k={MASK}"],
        "engine_options": {
            "extra_body": {"api_key": MASK, "max_tokens": 3, "nested": [{"Client-Secret": MASK}]},
            "headers_env": {"Authorization": "MY_KEY"},
        },
    }
    assert json.loads(without_secrets(json.dumps({"api_key": "S3CRET", "a": 1}))) == {"api_key": MASK, "a": 1}

"""Requests to and answers from an OpenAI-compatible service: pure functions of bytes, no connection."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.engines.base import EngineLoadError
from penstock.engines.chat_options import option
from penstock.engines.openai.body import MAX_REPLY_BYTES, reply_limit_bytes
from penstock.engines.openai.failures import CallFailed
from penstock.engines.openai.retry import retry_after_s
from penstock.engines.sampling import RowFault
from penstock.protocol.messages import Answer, Output, Request
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import Messages, TokenIds, texts_in
from penstock.redaction import Redactor, is_secret_name, secrets_of_url, texts_of

__all__ = ["Api", "address", "is_passing", "variable_of"]

Bytes = bytes | bytearray
KINDS = {408: "broken", 409: "broken", 425: "busy", 429: "busy", 502: "away", 503: "away", 504: "away"}
"""Statuses that mean: later. So do all others of 5xx but 501, which means: never."""
_TOO_LONG = ("context length", "context window", "context_length_exceeded", "maximum context", "max_model_len",
             "prompt is too long", "too many tokens", "maximum model length", "input is too long")  # fmt: skip
_MESSAGE_CHARS = 500
MOST_TOKENS = 100_000_000
"""Of one answer. A larger count is not believed; so many sums of them fit into 64 bits as a run can have rows."""
_NOTHING = msgspec.Raw(b"null")
_RESERVED = frozenset({"model", "messages", "prompt", "stream", "n"})
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")  # what variables are called, and keys are not
_ENCODER = msgspec.json.Encoder()


def is_passing(status: int) -> bool:
    """Whether it says: later. All others are final, for the request."""
    return status in KINDS or (status >= 500 and status != 501)


class Api:
    """`chat` (/chat/completions: a prompt is one user message) or `completions` (/completions: raw prompts)."""

    def __init__(self, model: str, options: Mapping[str, Any], key: str | None, urls: Sequence[str] = ()) -> None:
        self.name: str = option(options, "api", str, "chat")
        if self.name not in ("chat", "completions"):
            raise EngineLoadError(f"engine_options: api is {self.name!r}; expected chat or completions", "bad_model")
        self.path = "/chat/completions" if self.name == "chat" else "/completions"
        self._model = model
        self._max_tokens_field: str = option(options, "max_tokens_field", str, "max_tokens")
        self._sends_seed: bool = option(options, "send_seed", bool, True)
        self._extra: dict[str, Any] = option(options, "extra_body", dict, {})
        if wrong := sorted(_RESERVED & self._extra.keys()):
            raise EngineLoadError(f"engine_options: extra_body may not set {', '.join(wrong)}", "bad_model")
        secrets = [key] if key else []
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        for header, variable in option(options, "headers_env", dict, {}).items():
            value = variable_of(variable, "headers_env")
            self.headers[header] = value
            secrets.append(value)
        secrets += [text for name, value in self._extra.items() if is_secret_name(name) for text in texts_of(value)]
        secrets += [secret for url in urls for secret in secrets_of_url(url)]
        self._redactor = Redactor(secrets)

    def body(self, request: Request) -> bytes:
        """The request as JSON. Raises RowFault("refused") for a payload that the API can't take."""
        body: dict[str, Any] = {"model": self._model}
        match request.payload:
            case str(text):
                is_chat = self.name == "chat"
                body |= {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
            case Messages() as chat if self.name == "chat":
                body["messages"] = chat.as_dicts()
            case TokenIds(ids) if self.name == "completions":
                body["prompt"] = ids
            case Messages():
                raise RowFault("refused", "messages need the chat API; engine_options.api is completions")
            case _:
                raise RowFault("refused", "token ids need engine_options.api: completions")
        body.update(self._sampling(request))
        body.update(self._extra)
        return _ENCODER.encode(body)

    def limit_bytes(self, body: bytes, request: Request) -> int:
        """The most that the reply may have. Further fields of the user may ask for anything."""
        return MAX_REPLY_BYTES if self._extra else reply_limit_bytes(len(body), request.sampling)

    def _sampling(self, request: Request) -> dict[str, Any]:
        """Only what was asked for: services refuse fields that they do not know."""
        sampling = request.sampling or Sampling()
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "min_tokens", "top_k",
                 "min_p", "repetition_penalty")  # fmt: skip
        fields: dict[str, Any] = {name: value for name in names if (value := getattr(sampling, name)) is not None}
        if sampling.max_tokens is not None:
            fields[self._max_tokens_field] = sampling.max_tokens
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        if sampling.n != 1:
            fields["n"] = sampling.n
        if sampling.ignore_eos:
            fields["ignore_eos"] = True
        if sampling.seed is not None:
            fields["seed"] = sampling.seed
        elif self._sends_seed and request.seed is not None and sampling.temperature != 0:
            fields["seed"] = request.seed
        if sampling.logprobs is not None:
            fields["logprobs"] = sampling.logprobs if self.name == "completions" else True
        return fields

    def read(self, url: str, status: int, headers: Mapping[str, str], content: Bytes, request: Request) -> Answer:
        """The answer. Raises CallFailed for the service's failure, RowFault for the request's."""
        if status == 200:
            wants_logprobs = request.sampling is not None and request.sampling.logprobs is not None
            return self._success(url, content, request, wants_logprobs)
        if is_passing(status):
            raise CallFailed(f"{url}: status {status}", KINDS.get(status, "broken"), retry_after_s(headers))
        said = _said(content)
        words = self._words(said, request)
        lowered = said.lower()
        if status in (400, 413, 422) and any(sign in lowered for sign in _TOO_LONG):
            raise RowFault("too_long", f"{url}: {words}")
        raise RowFault("refused", f"{url}: status {status}{_hint(status)}: {words}")

    def _success(self, url: str, content: Bytes, request: Request, wants_logprobs: bool) -> Answer:
        try:
            reply = msgspec.json.decode(content, type=_Reply)
            if any(choice.finish_reason == "content_filter" for choice in reply.choices):
                raise RowFault("refused", f"{url}: the service's content filter stopped the answer")
            choices = sorted(reply.choices, key=lambda choice: choice.index)
            outputs = [choice.output(wants_logprobs) for choice in choices]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CallFailed(f"{url}: status 200 with an invalid body", "broken") from error
        if not outputs:
            raise CallFailed(f"{url}: status 200 without an output", "broken")
        tokens_in, tokens_out = _usage(reply.usage)
        if len(outputs) == 1:
            outputs[0].tokens_out = tokens_out or outputs[0].tokens_out
        elif not any(each.tokens_out for each in outputs):
            _share(outputs, tokens_out)
        return Answer(request.id, request.attempt, outputs=outputs, tokens_in=tokens_in)

    def _words(self, said: str, request: Request) -> str:
        """The service's message, without what it repeats of key or prompt, and not endless."""
        return self._redactor.redacted(said, texts_in(request.payload))[:_MESSAGE_CHARS] or "no message"


def _said(content: Bytes) -> str:
    """The service's own message."""
    try:
        return msgspec.json.decode(content, type=_Refusal).words()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def variable_of(name: object, option_name: str) -> str:
    """The value of the environment's variable that an option names. Raises EngineLoadError.

    A name that can't be one is not repeated: it may be the key itself, put there by mistake.
    """
    value = os.environ.get(name) if isinstance(name, str) and name and "\0" not in name and "=" not in name else None
    if value:
        return value
    shown_name = name if isinstance(name, str) and _VARIABLE.fullmatch(name) else "a variable"
    hint = (
        ""
        if shown_name == name
        else f"; {option_name} takes the variable's name, for instance MY_KEY, not the key itself"
    )
    raise EngineLoadError(
        f"engine_options: {option_name} names {shown_name}, which is not set in the environment{hint}", "bad_model"
    )


def address(base_url: str, path: str) -> str:
    """The URL of a call: the path goes before the query of the base URL, which each call has."""
    base, _, query = base_url.partition("#")[0].partition("?")
    return base.rstrip("/") + path + (f"?{query}" if query else "")


def _share(outputs: list[Output], tokens: int) -> None:
    """Usage counts the tokens of all n outputs together; spread them so that their sum is right."""
    each, rest = divmod(tokens, len(outputs))
    for index, output in enumerate(outputs):
        output.tokens_out = each + (1 if index < rest else 0)


def _usage(raw: msgspec.Raw) -> tuple[int, int]:
    """The tokens of the prompt and of the answer; 0 for what is no count. A figure decides nothing about an answer."""
    try:
        usage = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return 0, 0
    if not isinstance(usage, dict):
        return 0, 0
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0


def _hint(status: int) -> str:
    if status in (301, 302, 303, 307, 308):
        return " (redirects are not followed, since they would send the key along: set base_url to the new address)"
    return {
        401: " (unauthorized: check the environment variable of the key)",
        403: " (forbidden: check that the key may use this model)",
        404: " (not found: check base_url, which usually ends in /v1, and the model's name)",
    }.get(status, "")


class _Token(msgspec.Struct):
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None
    token_logprobs: list[float | None] | None = None

    def values(self) -> list[float]:
        if self.content is not None:
            return [token.logprob for token in self.content]
        return [value for value in self.token_logprobs or () if value is not None]


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NOTHING

    def output(self, wants_logprobs: bool) -> Output:
        """Raises ValueError for a choice that is no answer. A model that only thought has a message without text."""
        text = (self.message.content or "") if self.message is not None else self.text
        if text is None or self.finish_reason in (None, "abort"):
            raise ValueError("no answer")
        reason = "length" if self.finish_reason in ("length", "max_tokens") else "stop"
        found = msgspec.json.decode(self.logprobs, type=_Logprobs | None) if wants_logprobs else None
        logprobs = found.values() if found is not None else None
        return Output(text, reason, len(logprobs or ()), None, logprobs)


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: msgspec.Raw = _NOTHING


class _Detail(msgspec.Struct):
    message: str | None = None
    code: str | int | None = None


class _Refusal(msgspec.Struct):
    """The shapes in which services word a refusal."""

    error: _Detail | str | None = None
    message: str | None = None
    detail: str | list[Any] | None = None

    def words(self) -> str:
        if isinstance(self.error, _Detail):
            code = f" ({self.error.code})" if self.error.code else ""
            return f"{self.error.message or ''}{code}"
        if isinstance(self.error, str):
            return self.error
        return self.message or (self.detail if isinstance(self.detail, str) else "")

"""From a request's payload to token ids, with the model's own chat template.

A text is one user message where the model has a chat template, and raw text where it has none or the option
`chat: false` says so. Token ids are taken as they are. The template runs in the sandbox of transformers; its text is
tokenised without special tokens, which the template writes itself, while raw text gets the tokenizer's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.engines.base import EngineLoadError
from penstock.engines.chat_options import option
from penstock.engines.sampling import RowFault
from penstock.protocol.payloads import Messages, Payload, TokenIds, kind_of

__all__ = ["CHAT_OPTIONS", "CHAT_PAYLOADS", "ChatEncoder"]

CHAT_PAYLOADS = ("text", "tokens", "messages")
"""The kinds of payloads that `ChatEncoder.encode` takes."""

CHAT_OPTIONS = ("chat", "chat_template", "chat_template_kwargs")
_RESERVED_KWARGS = frozenset(
    {"conversation", "messages", "tokenize", "return_dict", "return_tensors", "add_generation_prompt", "chat_template",
     "tokenizer_kwargs", "padding", "truncation", "max_length", "continue_final_message"}
)  # fmt: skip
"""Arguments of apply_chat_template that are not the template's: options must not change how it is called."""


class ChatEncoder:
    """Turns payloads into token ids with one tokenizer and the chat options of a model."""

    def __init__(self, tokenizer: Any, options: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        # A prompt over the tokenizer's idea of the context is judged by `fit`, with a message; no warning is needed.
        warned = getattr(tokenizer, "deprecation_warnings", None)
        if isinstance(warned, dict):
            warned["sequence-length-is-longer-than-the-specified-maximum"] = True
        self._template: str | None = option(options, "chat_template", str, None)
        self._kwargs: dict[str, Any] = option(options, "chat_template_kwargs", dict, {})
        wrong = sorted(_RESERVED_KWARGS & self._kwargs.keys())
        if wrong:
            raise EngineLoadError(f"engine_options: chat_template_kwargs may not set {', '.join(wrong)}", "bad_model")
        has_template = self._template is not None or bool(getattr(tokenizer, "chat_template", None))
        self.has_template = has_template
        self.wraps_prompts: bool = option(options, "chat", bool, has_template)
        if self.wraps_prompts and not has_template:
            raise EngineLoadError(
                "engine_options: chat is true, but the model has no chat template; give chat_template", "bad_model"
            )

    def encode(self, payload: Payload | None) -> list[int]:
        """Token ids of a payload of the kinds CHAT_PAYLOADS. Raises RowFault("refused")."""
        match payload:
            case str() if self.wraps_prompts:
                return self._encode_messages([{"role": "user", "content": payload}])
            case str():
                return self._tokens(payload, special=True)
            case TokenIds():
                return payload.ids
            case Messages(items=[_, *_]):
                return self._encode_messages(payload.as_dicts())
            case Messages():
                raise RowFault("refused", "a chat without a message; give at least one")
        raise RowFault("refused", f"a payload of the kind {kind_of(payload)!r} has no tokens")

    def _encode_messages(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        if not self.has_template:
            raise RowFault(
                "refused", "the model has no chat template for messages; give a prompt, or engine_options.chat_template"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, chat_template=self._template, **self._kwargs
            )
        except Exception as error:  # a template is a program of the model's authors: it may raise anything
            raise RowFault(
                "refused", f"the chat template refused the messages: {type(error).__name__}: {error}"
            ) from error
        return self._tokens(text, special=False)

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=special))
        except Exception as error:
            raise RowFault("refused", f"the tokenizer refused the text: {type(error).__name__}: {error}") from error

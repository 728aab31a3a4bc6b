"""From a request's payload to token ids, with the model's own chat template.

A string is one user message where the model has a chat template, and raw text where it has none or the option
`chat: false` says so. A list is messages. The template runs in the sandbox of transformers; its text is tokenised
without special tokens, which the template writes itself, while raw text gets the tokenizer's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.engines.base import EngineLoadError
from penstock.engines.chat_options import option
from penstock.engines.sampling import RowFault

__all__ = ["CHAT_OPTIONS", "ChatEncoder", "check_messages"]

CHAT_OPTIONS = ("chat", "chat_template", "chat_template_kwargs")
_RESERVED_KWARGS = frozenset(
    {"conversation", "messages", "tokenize", "return_dict", "return_tensors", "add_generation_prompt", "chat_template",
     "tokenizer_kwargs", "padding", "truncation", "max_length", "continue_final_message"}
)  # fmt: skip
"""Arguments of apply_chat_template that are not the template's: options must not change how it is called."""


def check_messages(payload: Any) -> list[dict[str, Any]]:
    """The payload as messages. Raises RowFault("refused") naming the first entry that is none."""
    if not isinstance(payload, list | tuple) or not payload:
        raise RowFault("refused", f"messages must be a non-empty list, not {type(payload).__name__}")
    for index, message in enumerate(payload):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise RowFault("refused", f"message {index} must have a role (text) and a content")
    return [dict(message) for message in payload]


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

    def encode(self, payload: Any) -> list[int]:
        """Token ids of a prompt (str) or messages (list). Raises RowFault("refused")."""
        if not isinstance(payload, str):
            return self._encode_messages(check_messages(payload))
        if self.wraps_prompts:
            return self._encode_messages([{"role": "user", "content": payload}])
        return self._tokens(payload, special=True)

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

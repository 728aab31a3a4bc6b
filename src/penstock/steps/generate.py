"""generate: a prompt or messages to a model, its texts into columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.data.base import Row
from penstock.data.templates import Conversation, Template, TemplateFailure
from penstock.protocol.messages import Answer, Output, Request
from penstock.protocol.payloads import chat
from penstock.spec.steps import Generate
from penstock.steps.base import Columns, Failed, Outcome, PoolKind
from penstock.steps.sampling import SamplingTemplate


class GenerateLogic:
    """Adds `output` (a list of n texts where n > 1), then `<output>_meta` and `<output>_logprobs` when asked for.

    meta      struct of finish_reason, tokens_in, tokens_out; finish_reason and tokens_out are lists where n > 1
    logprobs  list of floats, one per output token; a list of such lists where n > 1
    """

    pool: PoolKind = "model"

    def __init__(self, step: Generate) -> None:
        self._prompt: Template | Conversation
        if step.prompt is not None:
            self._prompt = Template(step.prompt)
        else:
            messages = step.messages or ()
            self._prompt = Conversation([{"role": message.role, "content": message.content} for message in messages])
        self._sampling = SamplingTemplate(step.sampling, step.n)
        self._n = step.n
        self._output = step.output
        self._meta = f"{step.output}_meta" if step.meta else None
        self._logprobs = f"{step.output}_logprobs" if step.logprobs is not None else None
        self.columns: pa.Schema | None = self._schema()

    def render(self, row: Row) -> Request | Failed:
        try:
            prompt = self._prompt.render(row)
            return Request(prompt if isinstance(prompt, str) else chat(prompt), self._sampling.render(row))
        except TemplateFailure as failure:
            return Failed(failure.code, failure.message)

    def apply(self, row: Row, answer: Answer | None) -> Outcome:
        outputs = answer.outputs if answer is not None else []
        if answer is None or len(outputs) != self._n:
            return Failed("engine_error", f"the engine returned {len(outputs)} outputs; expected {self._n}")
        added = row.copy()
        added[self._output] = self._all([output.text for output in outputs])
        if self._meta is not None:
            added[self._meta] = self._meta_of(outputs, answer.tokens_in)
        if self._logprobs is not None:
            added[self._logprobs] = self._all([output.logprobs for output in outputs])
        return Columns(added)

    def _all(self, values: list[Any]) -> Any:
        return values[0] if self._n == 1 else values

    def _meta_of(self, outputs: list[Output], tokens_in: int) -> dict[str, Any]:
        return {
            "finish_reason": self._all([output.finish_reason for output in outputs]),
            "tokens_in": tokens_in,
            "tokens_out": self._all([output.tokens_out for output in outputs]),
        }

    def _schema(self) -> pa.Schema:
        fields = [pa.field(self._output, self._many(pa.string()))]
        if self._meta is not None:
            meta = [
                ("finish_reason", self._many(pa.string())),
                ("tokens_in", pa.int64()),
                ("tokens_out", self._many(pa.int64())),
            ]
            fields.append(pa.field(self._meta, pa.struct(meta)))
        if self._logprobs is not None:
            fields.append(pa.field(self._logprobs, self._many(pa.list_(pa.float64()))))
        return pa.schema(fields)

    def _many(self, type_: pa.DataType) -> pa.DataType:
        return type_ if self._n == 1 else pa.list_(type_)

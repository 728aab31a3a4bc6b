"""Fixes for dead rows, by code. Published with `DEAD_CODES` in docs/dead-rows.md."""

from __future__ import annotations

# code of errors.DEAD_CODES -> one sentence in the imperative.
FIXES: dict[str, str] = {
    "bad_json": "Correct the line in the source; a truncated last line means that the file was copied incompletely.",
    "bad_encoding": "Save the source as UTF-8 (`iconv -f latin1 -t utf-8`); write `\\ud83d` and the like in pairs.",
    "bad_number": "Write the value as a string, or as a number that fits in 64 bits.",
    "line_too_long": "Split the row, or move the large field to a separate file and keep its path in the row.",
    "too_deep": "Flatten the row, or keep the nested part as a string.",
    "bad_record": "Correct the record in the source: quote fields that contain separators or line breaks.",
    "type_mismatch": "Use one type for the column, or set its type under `source: {schema: {...}}`.",
    "template_missing_field": "Fill the column, filter out such rows, or write `{{ column | default('') }}`.",
    "template_error": "Correct the template for rows like this one; `penstock preview` shows the first rows at "
    "every step.",
    "bad_sampling": "Correct the column that the sampling field is rendered from, or use a constant.",
    "too_long": "Shorten the prompt, lower `max_tokens`, or raise `max_model_len`; Penstock never cuts a prompt.",
    "refused": "See the engine's message: it names the field that was rejected.",
    "engine_error": "See the replica's log in `logs`, then retry these rows.",
    "engine_crash": "Inspect the row, which crashes the engine each time; see the replica's log in `logs`.",
    "expired": "Allow more time, add replicas, or send fewer requests at once.",
    "replica_lost": "Send the request again. Rows of a run are not streamed and never end with it.",
    "function_error": "Correct the function; the message has the exception with file and line.",
    "function_timeout": "Make the function faster, or raise `timeout_s` of its step.",
    "function_result": "Return what the step expects: a dict (map), a bool (filter), a list of dicts (expand).",
    "encode_error": "Return values of one type per column, as in the first rows.",
}

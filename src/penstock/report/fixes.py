"""What to do about a dead row, by its code. Published with `DEAD_CODES` in docs/dead-rows.md."""

from __future__ import annotations

# code of errors.DEAD_CODES -> one sentence in the imperative.
MENDS: dict[str, str] = {
    "bad_json": "Correct the line in the source; a truncated last line means that the file was not copied whole.",
    "bad_encoding": "Save the source as UTF-8 (`iconv -f latin1 -t utf-8`); write `\\ud83d` and the like in pairs.",
    "bad_number": "Write the value as a string, or as a number that fits 64 bits.",
    "line_too_long": "Split the row, or keep the large field in a file of its own and its name in the row.",
    "too_deep": "Flatten the row, or keep the nested part as a string.",
    "bad_record": "Correct the record in the source: quote fields that contain separators or line breaks.",
    "type_mismatch": "Make the column of one type, or give its type under `source: {schema: {...}}`.",
    "template_missing_field": "Fill the column, filter such rows out, or write `{{ column | default('') }}`.",
    "template_error": "Correct the template for rows like this one; `penstock preview` shows rows through every step.",
    "bad_sampling": "Correct the column that the sampling field is rendered from, or give the field as a constant.",
    "too_long": "Shorten the prompt, lower `max_tokens`, or raise `max_model_len`; Penstock never cuts a prompt.",
    "refused": "Read the engine's message: it names the field that it does not accept.",
    "engine_error": "Read the replica's log in the folder `logs`, then run these rows again.",
    "engine_crash": "Look at the row: it ends the engine each time; the replica's log in `logs` has the last words.",
    "function_error": "Correct the function; the message has the exception with its file and line.",
    "function_timeout": "Make the function faster, or raise `timeout_s` of its step.",
    "function_result": "Let the function return what its step expects: a dict (map), a bool (filter), dicts (expand).",
    "encode_error": "Let the step give values of one type per column, as in the first rows.",
}

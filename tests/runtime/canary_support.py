"""Canaries: a key, the content of rows, and sequences that act on a terminal; and where they must not come to light."""

from __future__ import annotations

import html
import json
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow.dataset as ds
import pytest
import yaml

from penstock.cli.main import main

KEY = "sk-Jx8WqNz3Ft5UvBe1"
ROW = "Zq7KvTn2XwLp9RbYd4HsMc6G"
ACTS = "\x1b]0;pwned\x07\x1b[31m\x9b2J\u202e\r\x7f"
UNREACHABLE = "http://127.0.0.1:9/v1"  # nobody listens on the port for discarding
KEY_RUN, ROW_RUN = 7, 16  # characters that must not be found in a row


TALLY = {"tests": 0, "commands": 0, "characters printed": 0, "files": 0}  # looked at, of this session


def row_text(number: int, more: str = "") -> str:
    return f"{ROW}{ACTS} number {number};{more}"


# ---------------------------------------------------------------- what is found


def _fold(text: str) -> str:
    return "".join(each for each in text.casefold() if each.isalnum())


def _has(text: str, secret: str, run: int) -> bool:
    folded, wanted = _fold(text), _fold(secret)
    return any(wanted[place : place + run] in folded for place in range(len(wanted) - run + 1))


def secrets_in(text: str, *, rows: bool = True) -> list[str]:
    """Names of the canaries in it, as it is and with escapes undone."""
    opened = unquote(html.unescape(text.encode("utf-8", "replace").decode("unicode_escape", "replace")))
    found = [f"key {KEY}" for each in (text, opened) if _has(each, KEY[3:], KEY_RUN)]
    if rows:
        found += [f"row {ROW}" for each in (text, opened) if _has(each, ROW, ROW_RUN)]
    return sorted(set(found))


def acting(text: str) -> list[str]:
    """Characters that act on a terminal."""
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return sorted(
        {
            repr(each)
            for each in text
            if (unicodedata.category(each) in ("Cc", "Zl", "Zp") and each not in "\n\t")
            or unicodedata.bidirectional(each) in bidi
        }
    )


def leaks(folder: Path, given: set[str]) -> list[str]:
    """Files of a run's folder and of what lies beside it, but for what was given, that hold a canary.

    Rows belong in data/, dead/ and the ledger's segments; keys belong nowhere.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if not path.is_file() or path.name in given or path.suffix == ".pyc":
            continue
        holds_rows = any(part in ("data", "dead", "segments", "staging") for part in inside)
        text = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet" and holds_rows:
            text = json.dumps(ds.dataset(path).to_table().to_pylist(), default=str)
        TALLY["files"] += 1
        found += [f"{'/'.join(inside)}: {name}" for name in secrets_in(text, rows=not holds_rows)]
    return found


# ---------------------------------------------------------------- a service that says what it was told

Echo = Callable[[str, str], tuple[int, Any]]


def error(message: str, status: int = 400) -> tuple[int, Any]:
    return status, {"error": {"message": message}}


ECHOES: dict[str, Echo] = {
    "the key": lambda prompt, key: error(f"Incorrect API key provided: {key}", 401),
    "the key's beginning": lambda prompt, key: error(f"Incorrect API key provided: {key[:8]}****", 401),
    "both ends of the key": lambda prompt, key: error(f"Incorrect API key provided: {key[:8]}*****{key[-4:]}.", 401),
    "the key in upper case": lambda prompt, key: error(f"KEY {key.upper()} IS FORBIDDEN", 403),
    "the key in a header": lambda prompt, key: error(f"headers: {{'authorization': 'Bearer {key}'}}", 403),
    "the key, URL-escaped": lambda prompt, key: error(quote(f"key={key}", safe=""), 404),
    "the key in HTML": lambda prompt, key: error("".join(f"&#{ord(each)};" for each in key), 401),
    "the key in \\u": lambda prompt, key: error("".join(f"\\u{ord(each):04x}" for each in key), 401),
    "the key, wrapped": lambda prompt, key: error("\n".join(key[at : at + 5] for at in range(0, len(key), 5)), 401),
    "the prompt": lambda prompt, key: error(f"can't take {prompt}"),
    "the prompt's beginning": lambda prompt, key: error(f"can't take '{prompt[:20]}...'"),
    "the prompt's middle": lambda prompt, key: error(f"bad text '...{prompt[4:40]}...'", 422),
    "the prompt as JSON": lambda prompt, key: error(f"body was {json.dumps({'content': prompt})}"),
    "the prompt as JSON in JSON": lambda prompt, key: error(json.dumps(json.dumps({"content": prompt}))),
    "the prompt, URL-escaped": lambda prompt, key: error(quote(prompt)),
    "the prompt in HTML": lambda prompt, key: error(html.escape(f"<b>{prompt}</b>"), 413),
    "the prompt in \\u": lambda prompt, key: error("".join(f"\\u{ord(each):04x}" for each in prompt)),
    "the prompt in upper case": lambda prompt, key: error(prompt.upper()),
    "the prompt, wrapped": lambda prompt, key: error("\n".join(prompt[at : at + 9] for at in range(0, 60, 9))),
    "the prompt spaced out": lambda prompt, key: error(" ".join(prompt)),
    "the prompt's repr": lambda prompt, key: error(repr(prompt)),
    "too long": lambda prompt, key: error(f"maximum context length is 5, got {prompt}"),
    "error is a text": lambda prompt, key: (400, {"error": f"{prompt} {key}"}),
    "message": lambda prompt, key: (400, {"message": f"{prompt} {key}"}),
    "detail": lambda prompt, key: (422, {"detail": f"{prompt} {key}"}),
    "the code": lambda prompt, key: (400, {"error": {"message": "no", "code": f"{prompt} {key}"}}),
    "no JSON": lambda prompt, key: (400, f"<html>{prompt} {key}</html>"),
    "a 200 that is none": lambda prompt, key: (200, f"{prompt} {key}"),
    "a 500": lambda prompt, key: (500, {"error": {"message": f"{prompt} {key}"}}),
    "a redirect": lambda prompt, key: (302, {"error": {"message": f"{prompt} {key}"}}),
    "a content filter": lambda prompt, key: (
        200,
        {"choices": [{"message": {"content": f"{prompt} {key}"}, "finish_reason": "content_filter"}]},
    ),
    "no choices": lambda prompt, key: (200, {"choices": [], "error": f"{prompt} {key}"}),
}


@contextmanager
def service() -> Iterator[str]:
    """The URL of a service that answers `echo=N; step=N;` in a prompt with the Nth of ECHOES, and all else well."""
    echoes = list(ECHOES.values())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"]
            asked = [
                number for number in range(len(echoes)) if f"echo={number};" in prompt and f"at={number};" in prompt
            ]
            good = {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, content = echoes[asked[0]](prompt, key) if asked else (200, good)
            sent = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:9/?key={key}")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ---------------------------------------------------------------- pipelines


def write(
    folder: Path,
    steps: list[dict[str, Any]],
    *,
    model: dict[str, Any] | None = None,
    models: dict[str, Any] | None = None,
    rows: int = 6,
    source: str | bytes | None = None,
    file: str = "rows.jsonl",
    functions: str = "",
    schema: dict[str, str] | None = None,
    **top: Any,
) -> set[str]:
    """p.yaml with its source and functions; the names of the files that were given."""
    lines = (json.dumps({"id": number, "q": row_text(number)}) for number in range(rows))
    content = "".join(line + "\n" for line in lines) if source is None else source
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    module = f"own_{abs(hash(folder))}"
    (folder / f"{module}.py").write_text(f"import os, sys, threading, traceback\n{functions}")
    written = {
        "models": models or {"writer": {"ref": "mock:test", "replicas": 1, **(model or {})}},
        "source": {"path": file, **({"schema": schema} if schema else {})},
        "steps": steps,
        "sink": {"path": "out"},
        "max_dead": 1.0,
        "commit_every_s": 0.1,
        **top,
    }
    text = yaml.safe_dump(written, sort_keys=False, allow_unicode=False).replace("OWN", module)
    (folder / "p.yaml").write_text(text)
    return {file, "p.yaml", f"{module}.py"}


def generate(prompt: str = "{{ q }}", output: str = "answer", **more: Any) -> dict[str, Any]:
    return {"generate": {"model": "writer", "prompt": prompt, "output": output, **more}}


def openai(url: Any, **options: Any) -> dict[str, Any]:
    given = {"start_patience_s": 0.0, "patience_s": 0.5, "retries": 0, "timeout_s": 5.0, **options}
    return {"ref": "small", "engine": "openai", "base_url": url, "engine_options": given}


# ---------------------------------------------------------------- commands


class Teller:
    """Runs commands, and looks at all that they say and leave behind."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.given, self.said = folder, set[str](), ""
        TALLY["tests"] += 1
        self._capfd = capfd

    def __call__(self, *arguments: str, rows_on_stdout: bool = False) -> int:
        self._capfd.readouterr()
        code = main(list(arguments))
        told = self._capfd.readouterr()
        TALLY["commands"] += 1
        TALLY["characters printed"] += len(told.out) + len(told.err)
        self.said = told.out + told.err
        assert acting(self.said) == [], self.said
        assert secrets_in(told.err) == [], told.err
        assert secrets_in(told.out, rows=not rows_on_stdout) == [], told.out
        return code

    def run(self, *arguments: str, code: int | tuple[int, ...] = (0, 1, 2, 3), display: str = "plain") -> int:
        ended = self("run", "p.yaml", "--display", display, "--json", *arguments)
        assert ended in (code if isinstance(code, tuple) else (code,)), self.said
        return ended

    def look(self) -> None:
        """At what a run has left, and at what `status` tells of it."""
        if (self.folder / "out" / "run.json").exists():
            assert self("status", "out") == 0
            assert self("status", "out", "--json") == 0
        assert leaks(self.folder, self.given) == []


def dead_codes(tell: Teller) -> set[str]:
    tell("status", "out", "--json")
    return {name.split()[-1] for name in json.loads(tell.said)["causes"]}

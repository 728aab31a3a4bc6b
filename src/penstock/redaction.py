"""Keys, passwords and rows taken out of text that is shown or kept.

    shown_url        a URL as it may be shown: without its password and the values of its query
    without_secrets  any text: the URLs in it, and what stands behind names such as api_key
    masked           plain data: the same for every text in it, and values under such names
    Redactor         a service's or a function's own words: without what they repeat of a key or of a row

What calls a service has the real URL and key; all else (messages, logs, run.json, summary.json, the pipeline kept for
`penstock retry`) is made of these.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

__all__ = [
    "MASK",
    "Redactor",
    "is_secret_name",
    "masked",
    "secrets_of_url",
    "shown_setting",
    "shown_url",
    "texts_of",
    "without_secrets",
]

MASK = "***"

# ---------------------------------------------------------------- URLs

_SHOWN_PARAMETERS = frozenset({"api-version", "api_version"})  # of a query; all others may be keys
_VERSION = re.compile(r"[\w.\-]*")
_PATH_END = re.compile(r"(?i);|%3f|%23|%3b")  # behind it stand parameters: of the path, or of a query that was escaped
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"`<>\\]+")


def shown_url(url: str) -> str:
    """The URL without its user and password, the values of its query and its fragment, each of which may be a key."""
    scheme, authority, path, query, fragment = _split(url)
    end = _PATH_END.search(path)
    shown = scheme + _shown_authority(authority) + (path[: end.end()] + MASK if end and path[end.end() :] else path)
    if query:
        shown += "?" + "&".join(_shown_parameter(parameter) for parameter in query[1:].split("&"))
    return shown + (f"#{MASK}" if fragment else "")


def _split(url: str) -> tuple[str, str, str, str, str]:
    """(scheme with "://", authority, path, query with "?", fragment with "#"), for any text."""
    head, has_fragment, fragment = url.partition("#")
    head, has_query, query = head.partition("?")
    scheme, slashes, rest = head.partition("://")
    if not slashes:
        scheme, rest = "", head
    authority, slash, path = rest.partition("/")
    if (
        slash
        and "@" not in authority
        and "@" in path
        and (not _is_host(authority) or _may_be_password(authority, path))
    ):
        # A password with a "/" in it, which ended the authority too soon.
        password, _, host = path.rpartition("@")
        host, slash, path = host.partition("/")
        authority = f"{authority}/{password}@{host}"
    return scheme + slashes, authority, slash + path, has_query + query, has_fragment + fragment


def _is_host(authority: str) -> bool:
    _, colon, port = authority.rpartition(":")
    return not colon or not port or port.isdecimal() or authority.endswith("]")


def _may_be_password(authority: str, path: str) -> bool:
    """Whether `user:12/34@host` may be meant, rather than port 12 and a path with an "@" in it."""
    host = path.rpartition("@")[2].partition("/")[0]
    return ":" in authority and (host == "localhost" or "." in host or ":" in host)


def _shown_authority(authority: str) -> str:
    _, at, host = authority.rpartition("@")
    if at:
        return f"{MASK}@{host}"
    return authority if _is_host(authority) else MASK  # what is no port may be a password with a "?" or "#" in it


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return MASK if parameter else ""
    return parameter if _is_shown(name, value) else f"{name}={MASK}"


def _is_shown(name: str, value: str) -> bool:
    return name.lower() in _SHOWN_PARAMETERS and _VERSION.fullmatch(value) is not None


def secrets_of_url(url: str) -> list[str]:
    """The parts that `shown_url` leaves out, as they stand in the URL and as they are meant."""
    _, authority, path, query, fragment = _split(url)
    found = [fragment[1:]]
    if end := _PATH_END.search(path):
        found += [path[end.end() :], path[end.end() :].partition("=")[2]]
    user, at, _ = authority.rpartition("@")
    if at:
        found += [user, *user.split(":", 1)]
    elif not _is_host(authority):
        found.append(authority)
    for parameter in query[1:].split("&"):
        name, equals, value = parameter.partition("=")
        if not _is_shown(name, value):
            found.append(value if equals else parameter)
    return list(dict.fromkeys(each for text in found for each in (text, unquote(text)) if each))


# ---------------------------------------------------------------- names of secrets

_SECRET_NAMES = frozenset(
    {"accesstoken", "apitoken", "auth", "authorization", "authtoken", "bearertoken", "credential", "credentials",
     "hftoken", "idtoken", "key", "pass", "passphrase", "passwd", "pwd", "refreshtoken", "sessiontoken", "sig",
     "signature", "token"}
)  # fmt: skip
_SECRET_ENDINGS = ("apikey", "accesskey", "secretkey", "subscriptionkey", "privatekey", "secret", "password")
_ASSIGNED = re.compile(
    r"(?i)\b(?<!headers_env\.)((?:[\w-]*[_-])?(?:api[_-]?key|access[_-]?key|secret[_-]?key|subscription[_-]?key|secret|password|passwd"
    r"|(?:access|api|auth|bearer|refresh|session)[_-]?token|authorization|sig))(['\"]?\s*[:=]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|bearer +[^\s,}\]&'\"]+|[^\s,}\]&'\"]+)"
)
_BASE_URL = re.compile(r"""(\bbase_url['"]?\s*:\s*)("(?:\\.|[^"\\])*"|'(?:''|[^'])*'|\[[^\]]*\]|[^,}\n]+)""")
_BEARER = re.compile(r"(?i)\b(bearer) +[A-Za-z0-9._~+/=-]{6,}")


def is_secret_name(name: object) -> bool:
    """Whether a value under this name (of a field or an option) is taken for a key or a password."""
    plain = re.sub(r"[^a-z0-9]", "", str(name).lower())
    return plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)


def without_secrets(text: str) -> str:
    """The text with every URL as it may be shown, and without what is assigned to a name such as api_key."""
    if "://" in text:
        text = _URL.sub(lambda match: shown_url(match[0]), text)
    text = _ASSIGNED.sub(_without_value, text)
    return _BEARER.sub(lambda match: f"{match[1]} {MASK}", text)


def shown_setting(setting: str) -> str:
    """A `KEY=VALUE` of --set as it may be shown."""
    key, equals, value = setting.partition("=")
    names = key.strip().split(".")
    if not equals or ("headers_env" in names and value.isupper()):  # the name of a variable
        return without_secrets(setting)
    if "engine_options" in names and is_secret_name(names[-1]):
        return f"{key}={MASK}"
    if "base_url" in names:
        return f"{key}={_shown_urls(value)}"
    return f"{key}={without_secrets(_BASE_URL.sub(lambda match: match[1] + _shown_urls(match[2]), value))}"


def _shown_urls(value: str) -> str:
    """One URL, or a list of them as YAML has it. A quote or a blank in a key does not end its URL."""
    if not value.lstrip().startswith(("[", "{", "-", "'", '"')):
        return shown_url(value)
    if len(value) > 1 and value[0] in "'\"" and value.find(value[0], 1) == len(value) - 1:
        return value[0] + shown_url(value[1:-1]) + value[0]
    pieces = re.split(r"([\s,\[\]{}]+)", value)
    return "".join(_shown_piece(piece) if index % 2 == 0 else piece for index, piece in enumerate(pieces))


def _shown_piece(piece: str) -> str:
    if "://" in piece:
        quote = piece[-1] if piece[-1] in "'\"" and piece[0] == piece[-1] else ""
        return shown_url(piece.removesuffix(quote)) + quote
    return MASK if piece.strip("'\"-") else piece


def _without_value(match: re.Match[str]) -> str:
    quote = match[3][0] if match[3][0] in "'\"" else ""
    return f"{match[1]}{match[2]}{quote}{MASK}{quote}"


def masked(value: Any, name: object = "") -> Any:
    """Plain data (mappings, sequences, scalars) without its secrets; `name` is what the value stands under."""
    if isinstance(value, Mapping):
        named = name != "headers_env"  # which holds names of variables, under names of headers
        return {key: masked(item, key if named else "") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(masked(item, name) for item in value)
    if is_secret_name(name) and value is not None:
        return MASK
    if name == "base_url" and isinstance(value, str):
        return shown_url(value)
    return without_secrets(value) if isinstance(value, str) else value


# ---------------------------------------------------------------- words of others

KEY_RUN = 6  # characters of a key, one after another, that are too many to show
ROW_RUN = 16  # letters and digits of a row or prompt likewise
LEAST_WHOLE = 4  # a shorter value of a row can't be distinguished from an ordinary word
MOST_WORDS = 8_192  # characters of somebody's message that are looked at; the rest is left out
MOST_COMPARED = 2_000_000  # characters of a row: with a longer one the words are left out
_KEY_MARK, _ROW_MARK = "\ue000", "\ue001"  # while others are looked for; nobody's words have them
_ENDS = 3  # characters of a key that services show around what they have masked themselves
_ROUNDS = 4  # of escapes within escapes
_JSON_ESCAPE = re.compile(r"\\+(u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrtbf\"'/])")
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_NOT_COMPARED = {True: re.compile(r"\s+"), False: re.compile(r"[\W_]+")}  # by whether punctuation is
_SEARCHED = 20_000_000  # characters: so many are sooner searched through than cut into pieces
_TOKEN = re.compile(r"\S+")
_SELF_MASKED = re.compile(r"\*{2,}|•{2,}|\.{3,}|…|[xX]{4,}")
_KEY_TAIL = re.compile(r"[\w*•.…~+/=\-]*")


class Redactor:
    """Takes out of text what it repeats of keys and rows, however that is escaped, wrapped, cut or spelled.

    secrets  keys and passwords, the same for all texts
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted({secret for secret in secrets if len(secret) >= LEAST_WHOLE}, key=len, reverse=True)

    def redacted(self, words: str, row: Iterable[str] = (), mark: str = "[prompt]") -> str:
        """`words` with "[key]" for what is of a key, and `mark` for what is of the texts of the row or prompt.

        Keys are found by any KEY_RUN characters in a row, rows by any ROW_RUN letters and digits, and each by its
        whole where it is shorter. Escapes of JSON, URLs and HTML are undone where they hide one.
        """
        texts = [text for text in row if len(text) >= LEAST_WHOLE]
        if sum(map(len, texts)) > MOST_COMPARED:
            return f"(the message is left out: it can't be compared with {mark} of this size)" if words else ""
        cut = len(words) > MOST_WORDS
        plain = words[:MOST_WORDS].replace(_KEY_MARK, "").replace(_ROW_MARK, "")
        found = self._taken_out(plain, texts)
        opened = _opened(plain)
        if opened != plain and (cleaned := self._taken_out(opened, texts)) != opened:
            found = cleaned  # some of it is hidden by escapes: the words are shown without these
        found = found.replace(_KEY_MARK, "[key]").replace(_ROW_MARK, mark)
        return without_secrets(found[: -ROW_RUN - 1] + " …" if cut else found)

    def _taken_out(self, words: str, texts: list[str]) -> str:
        for secret in self._secrets:
            words = _without_key(words, secret)
        for text in texts:
            words = words.replace(text, _ROW_MARK)
        return _without_row(words, texts)


def texts_of(value: Any) -> Iterator[str]:
    """Every text of plain data, and its numbers as text; the names of the outermost fields are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_of(item)
            if isinstance(item, Mapping):
                yield from map(str, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)


def _opened(words: str) -> str:
    """The words without escapes of HTML, URLs and JSON, also of several layers."""
    for _ in range(_ROUNDS):
        before = words
        words = _JSON_ESCAPE.sub(_unescaped, unquote(html.unescape(words), errors="ignore"))
        if words == before:
            break
    # Two halves of a pair that were escaped one by one are a character again; a half alone can't be sent or written.
    return words.replace("\\", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "ux":
        return chr(int(code[1:], 16))
    return _SIMPLE.get(code, code)


def _folded(text: str, *, punctuation: bool) -> tuple[str, list[int]]:
    """What is compared of a text, in one case and without blanks, and where each character of it stood."""
    kept: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if character.isalnum() or (punctuation and not character.isspace()):
            for folded in _NOT_COMPARED[punctuation].sub("", character.casefold()):
                kept.append(folded)
                places.append(place)
    return "".join(kept), places


def _wanted(text: str, *, punctuation: bool) -> str:
    """The first of `_folded`, which is most of its time."""
    return _NOT_COMPARED[punctuation].sub("", text.casefold())


def _shared(words: str, text: str, run: int) -> list[bool]:
    """For each character of `words`, whether it lies in `run` characters in a row that `text` has as well."""
    windows: dict[str, list[int]] = {}
    for place in range(len(words) - run + 1):
        windows.setdefault(words[place : place + run], []).append(place)
    hit = [False] * len(words)
    if len(windows) * len(text) <= _SEARCHED:
        shared = [window for window in windows if window in text]
    else:
        pieces = (text[place : place + run] for place in range(len(text) - run + 1))
        shared = list({piece for piece in pieces if piece in windows})
    for window in shared:
        for start in windows[window]:
            hit[start : start + run] = [True] * run
    return hit


def _without_row(words: str, texts: list[str]) -> str:
    for text in texts:
        folded, places = _folded(words, punctuation=False)
        wanted = _wanted(text, punctuation=False)
        run = min(ROW_RUN, len(wanted))
        if run >= LEAST_WHOLE:
            hits = [places[i] for i, hit in enumerate(_shared(folded, wanted, run)) if hit]
            words = _replaced(words, hits, _ROW_MARK)
    return words


def _without_key(words: str, secret: str) -> str:
    folded, places = _folded(words, punctuation=True)
    wanted = _wanted(secret, punctuation=True)
    run = min(KEY_RUN, len(wanted))
    if run >= LEAST_WHOLE:
        hits = [places[i] for i, hit in enumerate(_shared(folded, wanted, run)) if hit]
        words = _replaced(words, hits, _KEY_MARK, _KEY_TAIL)
    # "sk-a***wxyz": a key that the service has masked itself, all but its ends
    start, end = secret[:_ENDS].lower(), secret[-_ENDS:].lower()

    def hidden(match: re.Match[str]) -> str:
        token = match[0].strip(".,;:!?()[]{}'\"").lower()
        ends = len(secret) > 2 * _ENDS and (token.startswith(start) or token.endswith(end))
        return _KEY_MARK if ends and _SELF_MASKED.search(token) else match[0]

    return _TOKEN.sub(hidden, words)


def _replaced(words: str, places: list[int], mark: str, tail: re.Pattern[str] | None = None) -> str:
    """`words` with `mark` in place of each range of `places` (ascending), together with what `tail` matches behind
    it."""
    pieces: list[str] = []
    done = 0
    for first, last in _ranges(words, places):
        end = last + 1
        if first < done:
            continue
        if tail is not None and (more := tail.match(words, end)):
            end = more.end()
        pieces += [words[done:first], mark]
        done = end
    return "".join([*pieces, words[done:]])


def _ranges(words: str, places: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of places between which nothing stands but what is not compared."""
    first = last = -1
    for place in places:
        if first >= 0 and not any(character.isalnum() for character in words[last + 1 : place]):
            last = place
            continue
        if first >= 0:
            yield first, last
        first = last = place
    if first >= 0:
        yield first, last

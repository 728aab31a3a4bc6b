"""The errors of Penstock.

    PenstockError                 exit code 1
    ├── UsageError                2   a wrong flag or argument
    ├── ConfigError               2   an invalid pipeline, model or cluster file
    ├── InputError                2   an unreadable input
    ├── PlanError                 2   models that do not fit the devices
    ├── MissingDependency         2   an extra that is not installed, with the command to install it
    ├── RunMismatch               2   the output folder contains another run
    ├── RunOwned                  2   another process owns the run
    ├── Fenced                    1   a newer coordinator has taken over the run
    ├── CommitError               1   a commit failed
    ├── LedgerDamaged             1   the run's records are damaged
    ├── PoolFailed                1   no replica of a pool can serve
    ├── Stalled                   1   the coordinator's loop was blocked
    ├── RunIncomplete                 a run that began and is not done; `result` has its summary and facts
    │   ├── RunFailed             1
    │   ├── TooManyDead           3   more dead rows than `max_dead` allows
    │   └── Interrupted          75   Ctrl-C or SIGTERM; 130 if it stopped immediately
    └── InvariantError            1   a bug in Penstock; has the history of the row or replica

A message says what is wrong, where, the limit or what was expected, and the fix. Failed rows are not
exceptions: they become dead rows with one of `DEAD_CODES`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

__all__ = [
    "DEAD_CODES",
    "CommitError",
    "ConfigError",
    "ExitCode",
    "Fenced",
    "InputError",
    "Interrupted",
    "InvariantError",
    "LedgerDamaged",
    "MissingDependency",
    "PenstockError",
    "PlanError",
    "PoolFailed",
    "RunFailed",
    "RunIncomplete",
    "RunMismatch",
    "RunOwned",
    "Stalled",
    "TooManyDead",
    "UsageError",
]


class ExitCode(IntEnum):
    """Exit codes of the command line, and `RunResult.exit_code`. Documented in docs/cli.md."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # or configuration, a plan that does not fit, an input that can't be read at all
    TOO_MANY_DEAD = 3
    STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes
    STOPPED_AT_ONCE = 130  # the code of shells for SIGINT


class PenstockError(Exception):
    """Base of all errors. `message` is for people, `where` (FILE, FILE:LINE or a path of keys) may be None."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """So that a copy, as another process of the caller gets it, needs no arguments of `__init__`."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[PenstockError], arguments: tuple[object, ...], state: dict[str, object]) -> PenstockError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class UsageError(PenstockError):
    exit_code = ExitCode.USAGE


class ConfigError(PenstockError):
    exit_code = ExitCode.USAGE


class InputError(PenstockError):
    """`passing`: the disk or the network failed, not the file; it may be read again."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, where: str | None = None, passing: bool = False) -> None:
        super().__init__(message, where=where)
        self.passing = passing


class PlanError(PenstockError):
    exit_code = ExitCode.USAGE


class MissingDependency(PenstockError):
    exit_code = ExitCode.USAGE


class RunMismatch(PenstockError):
    exit_code = ExitCode.USAGE


class RunOwned(PenstockError):
    exit_code = ExitCode.USAGE


class Fenced(PenstockError):
    exit_code = ExitCode.FAILED


class CommitError(PenstockError):
    """`errno`: of the operating system, where it gave one. `fatal` False: nothing became visible, and the same batch
    may be committed again once there is room; True: end, and let the same command resume from what is durable."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, where: str | None = None, errno: int | None = None, fatal: bool = True) -> None:
        super().__init__(message, where=where)
        self.errno = errno
        self.fatal = fatal


class LedgerDamaged(PenstockError):
    """If the message does not end with a full stop, the general fix is appended."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, where: str | None = None) -> None:
        if not message.endswith("."):
            message += ". Restore it from a copy, or start over with another output folder (--out)."
        super().__init__(message, where=where)


class PoolFailed(PenstockError):
    exit_code = ExitCode.FAILED


class Stalled(PenstockError):
    exit_code = ExitCode.FAILED


class RunIncomplete(PenstockError):
    """What `run` and `retry` raise of a run that began and is not done, unless `check=False`. result: the RunResult."""

    def __init__(self, message: str, result: Any, *, where: str | None = None) -> None:
        super().__init__(message, where=where)
        self.result = result
        self.exit_code = ExitCode(result.exit_code)


class RunFailed(RunIncomplete):
    """The run as a whole failed: `result.facts.reason` says of what."""


class TooManyDead(RunIncomplete):
    """More rows died than `max_dead` allows: `result.facts.dead_examples` says of what."""


class Interrupted(RunIncomplete):
    """The run was stopped from outside."""


class InvariantError(PenstockError):
    exit_code = ExitCode.FAILED


# The closed list of reasons for which a row dies: code -> what it means. Published in docs/dead-rows.md.
DEAD_CODES: dict[str, str] = {
    "bad_json": "the line is not valid JSON, or not a JSON object",
    "bad_encoding": "the line is not valid UTF-8, or a string is not valid Unicode",
    "bad_number": "a number that the column's type can't hold (NaN, Infinity, too many digits)",
    "line_too_long": "the line is longer than the limit",
    "too_deep": "the JSON is nested deeper than the limit",
    "bad_record": "a CSV record with the wrong number of fields, or a row rejected by the reader",
    "type_mismatch": "a value that does not have the column's type, as inferred at the start of the run",
    "template_missing_field": "the template uses a column that is missing or null in this row",
    "template_error": "the template raised an error for this row",
    "bad_sampling": "a sampling field whose rendered value has the wrong type or is out of range",
    "too_long": "prompt, or prompt plus max_tokens, longer than the model's context; never cut",
    "refused": "the engine refused the request",
    "engine_error": "the request failed in the engine on every allowed attempt",
    "engine_crash": "the replica crashed each time it ran this request alone",
    "expired": "the request had no answer by its deadline",
    "replica_lost": "the replica failed after the first part of a streamed answer was sent; it is not run again",
    "function_error": "the step's function raised an exception",
    "function_timeout": "the step's function exceeded its time limit",
    "function_result": "the step's function returned an invalid value",
    "encode_error": "a result that can't be written in the column's type, or a row or prompt that can't be sent",
}

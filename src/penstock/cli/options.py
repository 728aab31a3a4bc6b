"""Options shared by several commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from penstock.redaction import MASK, shown_setting
from penstock.report.display import DisplayKind

PipelineFile = Annotated[str, Parameter(help="The pipeline file (YAML).")]
Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Override one value of the file: `a.b=c`. May be repeated."),
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print the result as one JSON document on stdout.")]
DisplayFlag = Annotated[
    DisplayKind,
    Parameter(
        name="--display",
        help="Progress display on stderr; auto: rich on a terminal, otherwise plain; jsonl: one object per line.",
        show_default=True,
    ),
]
ExecutorName = Annotated[
    Literal["local", "ray"],
    Parameter(name="--executor", help="Where replica processes run.", show_default=True),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The options of the commands that start replicas."""

    set_: Sets = ()
    executor: ExecutorName = "local"
    ray_address: Annotated[
        str | None, Parameter(help="Ray cluster, HOST:PORT or auto. Default: RAY_ADDRESS, else a new Ray instance.")
    ] = None
    display: DisplayFlag = "auto"
    takeover: Annotated[
        bool, Parameter(help="Take over the output folder from a process that still appears to own it.")
    ] = False
    json_: AsJson = False

    @property
    def is_quiet(self) -> bool:
        """Whether the display prints no messages for people."""
        return self.display in ("jsonl", "json", "none")

    def words(self) -> list[str]:
        """The options to repeat in the command that resumes the run, with keys masked."""
        executor = self.executor if self.executor != "local" else None
        settings = [word for setting in self.set_ for word in option("--set", shown_setting(setting))]
        return settings + option("--executor", executor) + option("--ray-address", self.ray_address)

    @property
    def key_hint(self) -> str:
        """A note behind a command in which keys are masked."""
        hidden = any(shown_setting(setting) != setting for setting in self.set_)
        return f"  (with the key in place of {MASK})" if hidden else ""


DEFAULTS = RunFlags()


def option(name: str, value: object) -> list[str]:
    """`name value` as words; none if the value is None."""
    return [] if value is None else [name, str(value)]

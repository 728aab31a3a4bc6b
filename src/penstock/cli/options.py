"""Options that several commands share, so that they are named and explained alike."""

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
        help="How progress is shown on stderr; auto: rich on a terminal, plain elsewhere; jsonl: one object per line.",
        show_default=True,
    ),
]
ExecutorName = Annotated[
    Literal["local", "ray"],
    Parameter(name="--executor", help="Where replica processes live.", show_default=True),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The options of the commands that start replicas."""

    set_: Sets = ()
    executor: ExecutorName = "local"
    ray_address: Annotated[
        str | None, Parameter(help="Ray cluster, HOST:PORT or auto. Default: RAY_ADDRESS, else a new local Ray.")
    ] = None
    display: DisplayFlag = "auto"
    takeover: Annotated[
        bool, Parameter(help="Take over the output folder from a process that still appears to own it.")
    ] = False
    json_: AsJson = False

    @property
    def is_quiet(self) -> bool:
        """Whether the display has no words for people."""
        return self.display in ("jsonl", "json", "none")

    def words(self) -> list[str]:
        """Those that the same command needs once more, without the keys in them."""
        executor = self.executor if self.executor != "local" else None
        settings = [word for setting in self.set_ for word in option("--set", shown_setting(setting))]
        return settings + option("--executor", executor) + option("--ray-address", self.ray_address)

    @property
    def key_hint(self) -> str:
        """What stands behind a command whose settings are shown without their keys."""
        hidden = any(shown_setting(setting) != setting for setting in self.set_)
        return f"  (with the key in place of {MASK})" if hidden else ""


DEFAULTS = RunFlags()


def option(name: str, value: object) -> list[str]:
    """`name value` as words; none where there is no value."""
    return [] if value is None else [name, str(value)]

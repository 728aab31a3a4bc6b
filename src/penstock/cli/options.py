"""Options that several commands share, so that they are named and explained alike."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

PipelineFile = Annotated[str, Parameter(help="The pipeline file (YAML).")]
Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Override one value of the file: `a.b=c`. May be repeated."),
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print the facts as JSON on stdout.")]
DisplayKind = Annotated[
    Literal["auto", "rich", "plain", "json", "none"],
    Parameter(
        name="--display",
        help="How progress is shown on stderr; auto: rich on a terminal, plain elsewhere.",
        show_default=True,
    ),
]
ExecutorName = Annotated[
    Literal["local", "ray"],
    Parameter(name="--executor", help="Where replica processes live.", show_default=True),
]

"""The models to plan and start: those of a pipeline, or launched models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.spec.graph import StepNode
from penstock.spec.model import Model
from penstock.spec.pipeline import Pipeline, Resources
from penstock.spec.problems import KeyPath, dotted
from penstock.spec.steps import Step

__all__ = ["ServedModels", "Workload"]


@dataclass(frozen=True)
class ServedModels:
    """Models without a pipeline, by name: all of them are loaded together and serve all clients. It has no steps."""

    models: Mapping[str, Model]
    resources: Resources = field(default_factory=Resources)
    steps: tuple[Step, ...] = field(default=(), init=False)

    def order(self) -> tuple[StepNode, ...]:
        return ()

    def place(self, path: KeyPath) -> str:
        """As `Pipeline.place`: they are made in Python."""
        return dotted(("launch", *path[2:])) if path[:1] == ("models",) else dotted(("launch", *path))


Workload = Pipeline | ServedModels

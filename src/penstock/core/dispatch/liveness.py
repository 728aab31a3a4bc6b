"""Signs of life of one replica, and when it counts as hung: progress is owed while requests are out, whatever
heartbeats say; while it loads it is enough to say anything."""

from __future__ import annotations

from penstock.core.shape import DispatchLimits, ReplicaShape


class Liveness:
    """progress       the engine's counter as last reported; -1: not yet
    progress_at    when it last grew, or began to be owed
    heard_at       while it loads: when it last said anything
    longest_gap_s  between two signs of progress while something executed
    """

    def __init__(self, shape: ReplicaShape, limits: DispatchLimits) -> None:
        self._shape = shape
        self._limits = limits
        self.progress = -1
        self.progress_at = 0.0
        self.heard_at: float | None = None
        self.longest_gap_s = 0.0

    def loads(self, now: float) -> None:
        """A load or a waking begins."""
        # Unheard again: a host that has not reported yet may wait for its node, and is not silent.
        self.heard_at, self.progress_at = None, now

    def serves(self, now: float) -> None:
        self.progress, self.progress_at = -1, now

    def saw(self, progress: int, executing: int, now: float, *, owes: bool) -> None:
        """A report: the engine's progress counter. A host that owes nothing is alive in any case.

        A host that reports nothing executing while requests are out has not begun them yet, or has lost them.
        """
        # Not by heartbeats: a host's thread beats on while its engine is stuck.
        if progress != self.progress or not owes:
            if self.progress >= 0 and executing:
                self.longest_gap_s = max(self.longest_gap_s, now - self.progress_at)
            self.progress, self.progress_at = progress, now

    def load_deadline(self) -> float:
        # Silence differs from a long load only once the host has reported: on a cluster the start itself may take long.
        longest = self.progress_at + self._limits.load_timeout_s
        return longest if self.heard_at is None else min(longest, self.heard_at + self._silence_s())

    def sleep_deadline(self) -> float:
        return self.progress_at + self._limits.sleep_timeout_s

    def work_deadline(self) -> float:
        allowed = self._shape.progress_timeout_s
        if allowed is None:
            # Measured, since a step of a large model may take longer than any fixed limit.
            allowed = max(self._limits.progress_timeout_s, self._limits.progress_factor * self.longest_gap_s)
        return self.progress_at + allowed

    def _silence_s(self) -> float:
        allowed = self._shape.progress_timeout_s
        return self._limits.silence_timeout_s if allowed is None else max(allowed, self._limits.least_silence_s)

"""Paths in a run directory. Names of files that come and go carry the epoch and number of their commit,
so that two coordinators never write to the same one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Layout", "carried_name", "epoch_of", "part_name", "partial_name", "segment_name", "staged_name"]


class Layout:
    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.data = out_dir / "data"
        self.dead = out_dir / "dead"
        self.run_file = out_dir / "run.json"
        self.private = out_dir / ".penstock"
        self.manifest = self.private / "manifest"
        self.segments = self.private / "segments"
        self.staging = self.private / "staging"
        self.keys = self.private / "keys"
        self.owner = self.private / "owner.json"
        self.hint = self.private / "newest"

    def folders(self) -> tuple[Path, ...]:
        return (self.private, self.manifest, self.segments, self.staging, self.keys, self.data, self.dead)

    def entry(self, seq: int) -> Path:
        return self.manifest / f"{seq:08d}.json"

    def retry(self, number: int) -> Path:
        """The folder of the `number`th run over dead rows of this one."""
        return self.private / f"retry-{number:04d}"

    def staged(self, name: str) -> Path:
        return self.staging / name

    def segment(self, name: str) -> Path:
        return self.segments / name


def segment_name(epoch: int, seq: int) -> str:
    return f"{epoch:04d}-{seq:08d}.arrow"


def carried_name(epoch: int, seq: int, number: int) -> str:
    return f"{epoch:04d}-{seq:08d}-carried-{number:04d}.arrow"


def partial_name(epoch: int, seq: int) -> str:
    return f"{epoch:04d}-{seq:08d}-partial.arrow"


def epoch_of(name: str) -> int:
    """The epoch of a file in staging/ or segments/; 0 for a name that is none of ours."""
    epoch, dash, _ = name.partition("-")
    return int(epoch) if dash and epoch.isdecimal() else 0


def part_name(number: int, suffix: str) -> str:
    return f"part-{number:05d}{suffix}"


def staged_name(epoch: int, seq: int, kind: str, name: str) -> str:
    """`kind`: data or dead, for the two have parts of one name; or entry."""
    return f"{epoch:04d}-{seq:08d}-{kind}-{name}"

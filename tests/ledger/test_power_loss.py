"""The power fails at every single operation of a run; whatever the disk has kept, the run goes on and is complete."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from ledger_support import Coordinator, assert_complete, open_ledger

from penstock.errors import CommitError
from penstock.ledger import Ledger
from penstock.ledger import joining as tails
from penstock.ledger.base import CommitBatch
from penstock.ledger.files import Files
from penstock.testing.files import PowerLoss, PowerlossFiles, Survivors

ROWS = 200


class Watched(Coordinator):
    """Remembers what `commit` has promised to keep."""

    def __init__(self, ledger: Ledger, total: int, promised: Promised) -> None:
        super().__init__(ledger, total)
        self.promised = promised

    def note(self, batch: CommitBatch) -> None:
        super().note(batch)
        self.promised.ended.update(batch.ended)
        for result in batch.partial:
            self.promised.steps[result.position] = result.step + 1


class Promised:
    """ended: rows. steps: of others, how many of their steps are paid for."""

    def __init__(self) -> None:
        self.ended: set[int] = set()
        self.steps: dict[int, int] = {}


def run(out: Path, files: Files, promised: Promised, seed: int = 0) -> None:
    """One life of a coordinator; what earlier lives have promised has to be there."""
    with open_ledger(out, files=files, takeover=True) as ledger:
        coordinator = Watched(ledger, ROWS, promised)
        done = set(range(ledger.state.watermark)) | set(ledger.state.ended_above)
        assert done >= promised.ended, f"committed, and gone: {sorted(promised.ended - done)}"
        for position, steps in promised.steps.items():
            found = coordinator.steps.get(position, 0)
            assert position in done or found >= steps, f"row {position} has {found} of {steps} paid steps"
        coordinator.run(batch_rows=25, window=50, seed=seed)


def count_operations(out: Path) -> int:
    files = PowerlossFiles(out.parent)
    run(out, files, Promised())
    assert_complete(out, ROWS)
    return files.operations


def lose_power(folder: Path, at: int, survivors: Survivors, seed: int, files_of: type[PowerlossFiles]) -> None:
    """A run that loses power at operation `at`, and the same command afterwards."""
    folder.mkdir()
    out, promised = folder / "out", Promised()
    files = files_of(folder, fails_at=at)
    with pytest.raises(PowerLoss):
        run(out, files, promised)
    files.restore(survivors, seed)
    run(out, Files(), promised)
    assert_complete(out, ROWS)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 17])
@pytest.mark.parametrize("survivors", ["none", "all", "some"])
def test_power_fails_at_every_operation(tmp_path: Path, survivors: Survivors, every: int) -> None:
    (tmp_path / "counted").mkdir()
    operations = count_operations(tmp_path / "counted" / "out")
    assert operations > 100
    for at in range(1, operations + 1, every):
        lose_power(tmp_path / f"{survivors}-{at}", at, survivors, at, PowerlossFiles)


@pytest.mark.parametrize("most_parts", [2, 32])
def test_power_fails_again_and_again(tmp_path: Path, most_parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "MAX_TAIL", most_parts)  # small parts of dead/ are joined at every other commit
    for seed in range(12):
        rng, folder, promised = Random(seed), tmp_path / str(seed), Promised()
        folder.mkdir()
        for life in range(8):
            files = PowerlossFiles(folder, fails_at=rng.randint(5, 120))
            try:
                run(folder / "out", files, promised, seed + life)
            except PowerLoss:
                files.restore(rng.choice(("none", "all", "some", "some")), seed * 100 + life)
        run(folder / "out", Files(), promised, seed)
        assert_complete(folder / "out", ROWS)


def test_no_space_or_a_failed_fsync_and_then_no_power(tmp_path: Path) -> None:
    """The fault ends the life or is waited out; then the power fails as well."""
    for number, fault in enumerate(("full_at", "broken_at") * 15):
        rng, folder, promised = Random(number), tmp_path / str(number), Promised()
        folder.mkdir()
        files = PowerlossFiles(folder, **{fault: rng.randint(20, 120)})
        try:
            run(folder / "out", files, promised, number)
        except CommitError:
            files.restore("some", number)
        run(folder / "out", Files(), promised, number)
        assert_complete(folder / "out", ROWS)


# ---------------------------------------------------------------- what the disk is not bound to keep is not kept


class ForgetsNames(PowerlossFiles):
    """As if nobody synced a folder."""

    def sync_folder(self, path: Path) -> None:
        self._step(syncs=True)
        if path.name == "manifest":
            return
        super().sync_folder(path)


class ForgetsBytes(PowerlossFiles):
    """As if nobody fsynced a file that is produced."""

    def produce(self, path: Path, write: object) -> int:
        made = super().produce(path, write)  # type: ignore[arg-type]
        self._bytes.pop(self._file_at(path))
        return made


@pytest.mark.parametrize("files_of", [ForgetsNames, ForgetsBytes])
def test_a_sync_that_is_missing_is_found(tmp_path: Path, files_of: type[PowerlossFiles]) -> None:
    found = 0
    for at in range(60, 120):
        try:
            lose_power(tmp_path / str(at), at, "none", at, files_of)
        except Exception:  # whatever it breaks
            found += 1
    assert found > 0

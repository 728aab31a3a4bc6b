"""The command that installs an extra works where it is printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock import distribution
from penstock.distribution import install_command


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell's pip is that of this environment."""
    monkeypatch.setattr("shutil.which", lambda name: str(Path(sys.executable).with_name("pip")))


@pytest.mark.usefixtures("pip")
def test_in_a_checkout_it_is_the_checkouts_own_and_stays_editable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = Path(distribution.__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    assert install_command("ray") == "pip install -e '.[ray]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("ray") == f"pip install -e '{root}[ray]'"


@pytest.mark.usefixtures("pip")
def test_installed_it_is_the_distributions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distribution, "__file__", str(tmp_path / "lib" / "penstock" / "distribution.py"))
    assert install_command("vllm") == "pip install 'penstock-llm[vllm]'"


def test_the_pip_of_another_environment_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, "/usr/bin/pip"):
        monkeypatch.setattr("shutil.which", lambda name, found=found: found)
        assert install_command("vllm").startswith(f"{sys.executable} -m pip install ")

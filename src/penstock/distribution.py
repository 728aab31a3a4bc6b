"""How this Penstock is distributed, and so the command that installs an extra beside it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["DISTRIBUTION", "install_command", "pip_command"]

DISTRIBUTION = "penstock-llm"  # `penstock` on the package index is another project


def install_command(extra: str) -> str:
    """Installs an extra in the environment of this process. In a checkout it is the checkout's own, and stays editable:
    installed from its path alone it would be replaced by a copy."""
    root = _checkout(Path(__file__).resolve().parents[2])
    if root is None:
        return pip_command(f"'{DISTRIBUTION}[{extra}]'")
    place = "." if root == Path.cwd() else str(root)
    return pip_command(f"-e {shlex.quote(f'{place}[{extra}]')}")


def pip_command(arguments: str) -> str:
    """`pip install ARGUMENTS`, by the pip of this process's environment."""
    pip = shutil.which("pip")
    # Without an activated environment the pip of the shell would install into another one.
    ours = pip is not None and os.path.dirname(pip) == os.path.dirname(sys.executable)
    return f"{'pip' if ours else f'{shlex.quote(sys.executable)} -m pip'} install {arguments}"


def _checkout(root: Path) -> Path | None:
    try:
        return root if f'name = "{DISTRIBUTION}"' in (root / "pyproject.toml").read_text("utf-8") else None
    except OSError:
        return None

"""Starts a host with the very Penstock that this file belongs to, under whichever interpreter runs it.

    PYTHON -P .../penstock/engines/boot.py --fd N

Another interpreter has its own packages and perhaps no Penstock, or another one. Putting ours on its path would put
everything beside it there too, and give it the wrong torch; so only the one package is made known. -P keeps this
folder, whose modules are named like the libraries that they adapt, off the path.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def _adopt_package(root: Path) -> None:
    spec = spec_from_file_location("penstock", root / "__init__.py", submodule_search_locations=[str(root)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"penstock host: {root} is not a package; reinstall Penstock")
    package = module_from_spec(spec)
    sys.modules["penstock"] = package
    spec.loader.exec_module(package)


def _check_interpreter() -> None:
    if tuple(sys.version_info) < (3, 11):
        raise SystemExit(f"penstock host: {sys.executable} is Python {sys.version.split()[0]}; Penstock needs 3.11")
    try:
        import msgspec  # noqa: F401
    except ImportError as error:
        raise SystemExit(
            f"penstock host: {sys.executable} lacks msgspec ({error}); install it with: "
            f"{sys.executable} -m pip install msgspec"
        ) from None


if __name__ == "__main__":
    _check_interpreter()
    _adopt_package(Path(__file__).resolve().parent.parent)
    from penstock.host.host import main

    main()

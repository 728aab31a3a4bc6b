"""A model on the Hugging Face hub: its folder in the local cache, else config.json and headers over the network."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.distribution import install_command
from penstock.errors import MissingDependency, PlanError
from penstock.planning.read.config import read_config
from penstock.planning.read.folder import INDEX, Checkpoint, read_folder, read_index
from penstock.planning.read.headers import DTYPE_BITS, Tensor

__all__ = ["read_hub"]

ETAG_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def read_hub(ref: str, revision: str | None) -> Checkpoint:
    """Raises PlanError where the model can't be had, MissingDependency without huggingface_hub."""
    if find_spec("huggingface_hub") is None:
        raise MissingDependency(
            f"'{ref}' is not a local folder, and access to the hub needs huggingface_hub: {install_command('hub')}"
        )
    from huggingface_hub import try_to_load_from_cache

    cached = _guarded(ref, lambda: try_to_load_from_cache(ref, "config.json", revision=revision))
    if isinstance(cached, str):
        folder = Path(cached).parent
        if any(folder.glob("*.safetensors")) or (folder / INDEX).is_file():
            return read_folder(folder)
    return _guarded(ref, lambda: _from_network(ref, revision))  # type: ignore[no-any-return]


def _from_network(ref: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import constants, get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, NotASafetensorsRepoError

    if not constants.HF_HUB_OFFLINE:
        _connect(constants.ENDPOINT)
    config = read_config(Path(hf_hub_download(ref, "config.json", revision=revision, etag_timeout=ETAG_TIMEOUT_S)))
    try:
        metadata = get_safetensors_metadata(ref, revision=revision)
    except NotASafetensorsRepoError:
        raise PlanError(f"'{ref}' has no safetensors on the hub; take a model or a revision that has them") from None
    except (EntryNotFoundError, KeyError):
        _, total = read_index(Path(hf_hub_download(ref, INDEX, revision=revision)))
        return Checkpoint(config, None, total)
    tensors = [
        Tensor(name, info.dtype, tuple(info.shape))
        for file in metadata.files_metadata.values()
        for name, info in file.tensors.items()
        if info.dtype in DTYPE_BITS
    ]
    return Checkpoint(config, tensors)


def _connect(endpoint: str) -> None:
    """Raises OSError where the hub can't be reached, at once: its library tries again for half a minute."""
    if any(os.environ.get(name) for name in PROXIES):
        return
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()


def _guarded(ref: str, ask: Any) -> Any:
    """What the library raises, offline or for a name that is not there, as one sentence with the fix."""
    try:
        return ask()
    except PlanError:
        raise
    except Exception as error:  # the library's own, its HTTP client's, and the system's: a wide tree with one meaning
        kind = type(error).__name__
        if kind in ("RepositoryNotFoundError", "GatedRepoError", "HFValidationError", "RevisionNotFoundError"):
            message = f"'{ref}' is neither a local folder nor on the hub ({kind}); check the name, or `hf auth login`"
        else:
            message = (
                f"'{ref}' is not a local folder, and the hub can't be reached ({kind}); download it on a "
                f"machine with network access (`hf download {ref}`), or set ref to a folder"
            )
        raise PlanError(message) from None

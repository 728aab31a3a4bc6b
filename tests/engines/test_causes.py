from __future__ import annotations

import pytest

from penstock.engines.base import EngineLoadError
from penstock.errors import MissingDependency
from penstock.host.causes import cause_lines, failure_of, is_device_failure, read_tail
from penstock.protocol.messages import LoadFailed

VLLM_LOG = """
(EngineCore pid=12) ERROR 11-20 10:00:00 [core.py:866] EngineCore failed to start.
(EngineCore pid=12) ERROR 11-20 10:00:00 [core.py:866] Traceback (most recent call last):
(EngineCore pid=12) ERROR 11-20 10:00:00 [core.py:866]   File "worker.py", line 1, in load
(EngineCore pid=12) ERROR 11-20 10:00:00 [core.py:866] ValueError: head size 12 is not supported
Process EngineCore:
Traceback (most recent call last):
  File "core.py", line 2, in run
    raise e
ValueError: head size 12 is not supported
Traceback (most recent call last):
  File "client.py", line 3, in wait
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""

CHAIN = """
Traceback (most recent call last):
  File "a.py", line 1, in read
FileNotFoundError: [Errno 2] No such file or directory: 'weights'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 2, in load
some.library.LoadError: could not load
"""


def raised(*errors: BaseException) -> BaseException:
    """The last of `errors`, each raised from the one before."""
    cause: BaseException | None = None
    for error in errors:
        try:
            raise error from cause
        except BaseException as caught:
            cause = caught
    assert cause is not None
    return cause


def test_the_innermost_error_is_the_cause() -> None:
    error = raised(FileNotFoundError("no weights"), ValueError("bad file"), RuntimeError("load failed"))
    assert failure_of(error) == LoadFailed("error", "FileNotFoundError: no weights")


def test_an_engines_own_words_stand() -> None:
    error = raised(KeyError("x"), EngineLoadError("the model has no tokenizer", code="bad_model"))
    assert failure_of(error) == LoadFailed("bad_model", "the model has no tokenizer")


def test_a_hint_is_no_cause() -> None:
    error = raised(RuntimeError("CUDA error"), RuntimeError("Engine core initialization failed. See root cause above."))
    assert failure_of(error).message == "RuntimeError: CUDA error"


def test_the_log_tells_what_a_child_did_not() -> None:
    error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    assert failure_of(error, VLLM_LOG) == LoadFailed("error", "ValueError: head size 12 is not supported")


def test_of_a_chain_in_the_log_the_first_counts() -> None:
    assert cause_lines(CHAIN) == ["FileNotFoundError: [Errno 2] No such file or directory: 'weights'"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModuleNotFoundError("No module named 'vllm'"), "missing_dependency"),
        (MissingDependency("install it with: pip install x"), "missing_dependency"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (ValueError("No available memory for the cache blocks. Try increasing it"), "out_of_memory"),
        (ValueError("1.2 GiB KV cache is needed, which is larger than the available KV cache memory"), "out_of_memory"),
        (ValueError("Free memory on device (2/80 GiB) is less than desired GPU memory utilization"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "out_of_memory"),
        (EngineLoadError("vLLM refused x: No available memory for the cache blocks.", "bad_model"), "out_of_memory"),
        (SystemExit(3), "error"),
        (KeyError("config"), "error"),
    ],
)
def test_kinds_of_failures(error: BaseException, code: str) -> None:
    failure = failure_of(error)
    assert failure.code == code
    assert failure.message


@pytest.mark.parametrize(
    ("message", "failed"),
    [
        ("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", False),
        ("torch.AcceleratorError: CUDA error: device-side assert triggered", False),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False),
        ("RuntimeError: CUDA error: invalid device ordinal", False),
        ("psycopg.Error: xid 1234 is gone", False),
        ("torch.AcceleratorError: CUDA error: unspecified launch failure", True),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", True),
        ("NVRM: Xid (PCI:0000:17:00): 79, GPU has fallen off the bus.", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", False),
        ("RuntimeError: CUDA error: out of memory", False),
        ("ValueError: the CUDA version is too old", False),
        ("was killed by SIGKILL", False),
    ],
)
def test_failures_of_a_device(message: str, failed: bool) -> None:
    assert is_device_failure(message) is failed


def test_an_error_of_several() -> None:
    group = ExceptionGroup("see above", [OSError("disk gone"), ValueError("x")])
    assert failure_of(group).message == "OSError: disk gone"


def test_the_tail_of_a_log_starts_where_it_is_told(tmp_path: object) -> None:
    path = f"{tmp_path}/log"
    with open(path, "w") as file:
        file.write("old\nnew\n")
    assert read_tail(path, start=4) == "new\n"
    assert read_tail(path, limit_bytes=2) == "w\n"
    assert read_tail(path + "-none") == ""

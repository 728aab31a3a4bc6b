"""The process that runs one engine: `python -m penstock.host.host --fd N`, N a stream socket.

    main thread   belongs to the engine: it loads, works where it wants to, and closes there
    loop thread   the socket, the queue and the figures (see `loop`); heartbeats flow while the engine loads

The terminal's Ctrl-C is the coordinator's business, so SIGINT is ignored. stdout and stderr go where the launcher
put them, a log per replica. SIGABRT prints the stacks of all threads there before it ends the process; SIGUSR1 prints
them and lets it continue.

Exit status: 0 closed, or the coordinator is gone; 1 the engine failed; 3 it did not load.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from penstock import __version__
from penstock.engine_info import info_of
from penstock.engines.base import Engine, EngineLoadError, MainThreadWorker, Sleeper
from penstock.engines.registry import create
from penstock.host.causes import failure_of, read_tail
from penstock.host.log import print_traceback
from penstock.host.loop import EXIT_CLOSED, EXIT_ENGINE_FAILED, HostLoop
from penstock.protocol.channel import Channel
from penstock.protocol.messages import PROTOCOL_VERSION, Capacity, Hello, Setup, Sleep
from penstock.protocol.wire import host_decoder

__all__ = ["main", "serve"]

CLOSE_LIMIT_S = 10.0  # for an engine to give its devices back
ORPHAN_LIMIT_S = 1.0  # the same when the coordinator is gone: the guardian is about to kill us anyway

# How often the threads of a Python step's worker take turns: its functions hold the interpreter, and the loop, which
# only passes messages on, must get it soon after it asks.
SWITCH_INTERVAL_S = 0.0005


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(prog="penstock-host", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fd", type=int, required=True, help="the connected stream socket, inherited")
    parser.add_argument("--functions", type=int, help="the file of functions that were sent by value, inherited")
    options = parser.parse_args(arguments)
    serve(socket.socket(fileno=options.fd), options.functions)


def serve(connection: socket.socket, functions: int | None = None) -> NoReturn:
    """Run one engine for the coordinator at the other end, then end the process. functions: the descriptor of those
    that were sent by value."""
    _prepare_process()
    hello = Hello(PROTOCOL_VERSION, __version__, os.getpid(), platform.python_version())
    loop = HostLoop(Channel(connection, host_decoder()), hello)
    ending = _Ending(loop)
    ending.start()
    loop.start()
    setup = loop.orders.get()
    engine = _load(setup, functions, loop) if isinstance(setup, Setup) else None
    if engine is not None:
        if isinstance(engine, MainThreadWorker):
            _work(engine)
        ending.patient = True
        _attend(engine, loop)
        loop.ended.wait()
        if loop.exit_status == EXIT_CLOSED:
            _close(engine)
    loop.ended.wait()
    _exit(loop.exit_status)


class _Ending(threading.Thread):
    """Exits the process when the loop has ended, even if the main thread is blocked.

    patient  the main thread waits for the end and is about to close the engine: give it time
    """

    def __init__(self, loop: HostLoop) -> None:
        super().__init__(name="penstock-end", daemon=True)
        self.patient = False
        self._loop = loop

    def run(self) -> None:
        self._loop.ended.wait()
        if self.patient:
            time.sleep(ORPHAN_LIMIT_S if self._loop.orphaned else CLOSE_LIMIT_S)
        _exit(self._loop.exit_status)


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _load(setup: Setup, functions: int | None, loop: HostLoop) -> Engine | None:
    """The loaded engine; None if the failure was reported, or the coordinator has gone."""
    began_s = time.monotonic()
    try:
        engine = make_engine(setup, functions)
        capacity = cut_capacity(engine.load(setup.config, loop.emit, loop.note), setup.share)
        if not capacity.version:
            capacity = msgspec.structs.replace(capacity, version=setup.version)
    except BaseException as error:  # SystemExit too: some libraries end the process where they should raise
        print_traceback(error)
        loop.load_failed(failure_of(error, read_tail("/proc/self/fd/2")))
        return None
    if isinstance(engine, MainThreadWorker):
        sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What loading left behind lives as long as the process: the collector need never look at it again.
    gc.collect()
    gc.freeze()
    loop.ready(engine, capacity, time.monotonic() - began_s)
    return engine


def cut_capacity(capacity: Capacity, share: float) -> Capacity:
    """Less of it, after the engine ran out of memory with more; the queue keeps the engine within it."""
    if share >= 1.0:
        return capacity
    slots, tokens = max(1, int(capacity.slots * share)), int(capacity.kv_tokens * share)
    tokens = max(1, tokens) if capacity.kv_tokens else 0  # 0 would be no limit
    return msgspec.structs.replace(capacity, slots=slots, kv_tokens=tokens)


def _attend(engine: Engine, loop: HostLoop) -> None:
    """Sleep and wake when asked to, until the end."""
    while (order := loop.orders.get()) is not None:
        began_s = time.monotonic()
        try:
            if not isinstance(engine, Sleeper):
                raise EngineLoadError("this engine does not support sleep")
            if isinstance(order, Sleep):
                engine.sleep()
                loop.asleep()
            else:
                loop.ready(engine, engine.wake(), time.monotonic() - began_s)
        except BaseException as error:
            print_traceback(error)
            loop.load_failed(failure_of(error, read_tail("/proc/self/fd/2")))
            return


def make_engine(setup: Setup, functions: int | None) -> Engine:
    if setup.work is not None:
        from penstock.engines.python.engine import PythonEngine

        return PythonEngine(setup.work, functions)
    if not info_of(setup.config.engine).runs(setup.config.task):
        message = f"the {setup.config.engine} engine does not support models with task: {setup.config.task}"
        raise EngineLoadError(message, "bad_model")
    return create(setup.config.engine)


def _work(engine: MainThreadWorker) -> NoReturn:
    """The main thread's part of an engine that works there; the process ends under it."""
    try:
        engine.run()
    except BaseException as error:
        print_traceback(error)
    _exit(EXIT_ENGINE_FAILED)


def _close(engine: Engine) -> None:
    """Let the engine give its devices back; the guardian ends what is left."""
    try:
        engine.close()
    except BaseException as error:
        print_traceback(error)


def _exit(status: int) -> NoReturn:
    """End at once: libraries leave threads and children behind that an orderly exit would wait for."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed by the engine, or the disk is full: nobody is left to tell
    os._exit(status)


if __name__ == "__main__":
    main()

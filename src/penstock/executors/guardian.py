"""The guardian of one replica: a small process that outlives the coordinator and the host, and leaves nothing behind.

    python -I -S guardian.py CONTROL_FD HOST_FD CORES COMMAND...

It starts COMMAND, the host, in a session of its own with HOST_FD open, on the cores CORES ("0,2", or "-" for all), and
watches two things: the control socket, whose end means that the coordinator is gone, and the host's exit. Either way
it kills the host's process group and every process that descends from it, wherever that has moved: as their "child
subreaper" the guardian becomes the parent of every orphan among them. Engines leave children behind that hold memory
and a core, so the guardian counts a replica as ended only when it has no descendant left. What they had in shared
memory goes with them.

Above the guardian is its keeper, from which it was forked: it waits for the guardian's end, and does the same work
where that was killed before it had done it. Killing all of Penstock at once (`pkill -9 -f penstock`) would else
leave what an engine has started in a session of its own. So the keeper has a name and a session of its own, and neither
socket nor thread; it ends with the guardian, and the guardian, cleanly, with it.

    keeper --> guardian --> host --> whatever the engine starts

On the control socket, one JSON object a line:

    guardian -> coordinator   {"guardian": PID, "host": PID}: they exist
                              {"status": S, "killed": K, "left": L}: the end. S as of waitpid (negative: the signal);
                              K processes were killed beside the host, L could not be
    coordinator -> guardian   "kill", or "dump" (the stacks into the log first), and a newline

Standard library only, and little of it: this starts in some 15 ms and stays small for the life of a replica.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time

DUMP_LIMIT_S = 0.5  # for the host to print its stacks
KERNEL_KILLS = "out of memory: the kernel has just ended a process of this machine"
MEMORY_LOOK_S = 10.0  # how often the kernel's count of processes that it ended for want of memory is looked at
TRACKER_LIMIT_S = 1.0  # for resource trackers to clean up behind those that were killed
SWEEP_LIMIT_S = 20.0  # a process that survives SIGKILL this long hangs in the kernel, with its driver

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

KEEPER = b"replica-keeper"  # at most 15 bytes, and nothing by which Penstock's other processes are found
ARGUMENTS = slice(45, 47)  # in /proc/PID/stat, counted from behind the name: where the command line begins and ends

TYPE_CHECKING = False  # the name that type checkers know; `typing` itself would add a fifth to the time this takes
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main(arguments: list[str]) -> NoReturn:
    control, host, cores, *command = arguments
    guard(int(control), int(host), parse_cores(cores), command)


def guard(control: int, host: int, cores: list[int], command: list[str]) -> NoReturn:
    """Become the keeper, with a guardian below that starts the host by `command`; exit when all have ended."""
    os.set_inheritable(control, False)
    keeper = os.getpid()
    become_subreaper()  # before there is anybody who could lose a parent
    guardian = os.fork()
    if guardian:
        os.close(control)
        os.close(host)
        keep(guardian)
    try:
        os.setsid()
        tie_to(keeper, signal.SIGTERM)
        watch_over(control, host, cores, command)
    finally:
        os._exit(1)


def keep(guardian: int) -> NoReturn:
    """The keeper's part: nothing, unless the guardian ends before all that is below it."""
    rename(KEEPER)
    waker = wake_on_signals()
    reaper = Reaper(guardian)
    while reaper.collect() and reaper.status is None:
        pause(waker, None, lambda: kill(guardian, signal.SIGTERM))
    if reaper.collect():
        sweep(waker, reaper)
    os._exit(0)


def watch_over(control: int, host: int, cores: list[int], command: list[str]) -> NoReturn:
    """The guardian's part: start the host in a child process, watch over it, end it, report, exit."""
    become_subreaper()
    waker = wake_on_signals()
    reaper = Reaper(start_host(control, host, cores, command))
    os.close(host)
    report(control, f'{{"guardian": {os.getpid()}, "host": {reaper.host}}}\n')
    kills = watch(control, waker, reaper)
    killed, left = sweep(waker, reaper)
    if reaper.status and memory_kills() > kills:
        # Into the log, where the coordinator looks for the cause. It may have been a child of the host's.
        print(KERNEL_KILLS, file=sys.stderr, flush=True)
    status = -signal.SIGKILL if reaper.status is None else reaper.status
    report(control, f'{{"status": {status}, "killed": {killed}, "left": {left}}}\n')
    os._exit(0)


class Reaper:
    """Collects ended children; `status` is the host's, once it has ended."""

    def __init__(self, host: int) -> None:
        self.host = host
        self.status: int | None = None

    def collect(self) -> bool:
        """Take what has ended; whether children remain."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.host:
                self.status = os.waitstatus_to_exitcode(status)


# ---------------------------------------------------------------- starting


def start_host(control: int, host: int, cores: list[int], command: list[str]) -> int:
    guardian = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(control)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        tie_to(guardian, signal.SIGKILL)
        restrict(cores)
        os.set_inheritable(host, True)
        os.execvp(command[0], command)
    except BaseException as error:
        print(f"penstock host: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def restrict(cores: list[int]) -> None:
    """Bind to cores, leave no core files of many gigabytes, and die before the coordinator when memory runs out."""
    if cores:
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            print(f"penstock host: not bound to the cores {cores}: {error}", file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 500:
                file.seek(0)
                file.write("500")
    except (OSError, ValueError):
        pass  # a courtesy; not every container allows it


# ---------------------------------------------------------------- watching


def wake_on_signals() -> int:
    """A descriptor that becomes readable when a child ends or the guardian is asked to end."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable


def watch(control: int, waker: int, reaper: Reaper) -> int:
    """Returns when the host has ended, the coordinator is gone, or one of them wants the end: what `memory_kills` was
    some seconds before."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(waker, select.POLLIN)
    before = latest = memory_kills()
    while reaper.status is None:
        ready = [descriptor for descriptor, _ in poll.poll(MEMORY_LOOK_S * 1000)]
        if not ready:
            before, latest = latest, memory_kills()
        if waker in ready and signal.SIGTERM in drain(waker):
            break
        reaper.collect()
        if control in ready:
            order = read(control)
            if b"dump" in order and reaper.status is None:
                dump_stacks(waker, reaper)
            break  # "kill", "dump", or the end of the socket
    return before


def memory_kills() -> int:
    """How many processes of this machine the kernel has ended for want of memory, since it was started."""
    try:
        with open("/proc/vmstat", "rb") as file:
            return int(file.read().partition(b"oom_kill ")[2].split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return 0  # it does not count


def dump_stacks(waker: int, reaper: Reaper) -> None:
    """SIGABRT makes every Python process of the group print its stacks (faulthandler) and end."""
    signal_group(reaper.host, signal.SIGABRT)
    until = time.monotonic() + DUMP_LIMIT_S
    while reaper.status is None and time.monotonic() < until:
        pause(waker, until - time.monotonic())
        reaper.collect()


# ---------------------------------------------------------------- ending


def sweep(waker: int, reaper: Reaper) -> tuple[int, int]:
    """Kill every descendant; (how many beside the host, how many are left).

    They may fork while we look, so we look again until none is left. Python's resource trackers come last: they end by
    themselves when those that they serve have, and remove the shared memory and semaphores that these had.
    """
    now = time.monotonic()
    until, trackers_until = now + SWEEP_LIMIT_S, now + TRACKER_LIMIT_S
    seen: set[int] = set()
    while True:
        below = descendants(os.getpid())
        spared = set(filter(is_tracker, below)) if time.monotonic() < trackers_until else set()
        if reaper.status is None and not spared:
            signal_group(reaper.host, signal.SIGKILL)
        for pid in below:
            if pid not in spared:
                kill(pid)
        seen.update(below)
        if not reaper.collect():
            return len(seen - {reaper.host}), 0
        if time.monotonic() > until:
            return len(seen - {reaper.host}), len(below)
        pause(waker, 0.02)


def descendants(root: int, *, zombies: bool = True) -> list[int]:
    """Every process below `root`, by the parents that /proc tells; with those that have ended and were not reaped."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if zombies or fields[0] != b"Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_tracker(pid: int) -> bool:
    """Whether it is the process in which Python's multiprocessing keeps account of shared memory and semaphores."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"multiprocessing.resource_tracker" in file.read(4096)
    except OSError:
        return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it ended meanwhile


def signal_group(host: int, number: int) -> None:
    """Only while the host is not reaped: until then its number can't be another's."""
    try:
        os.killpg(host, number)
    except OSError:
        kill(host)  # it has not made its group yet


# ---------------------------------------------------------------- small things


def become_subreaper() -> None:
    prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def tie_to(parent: int, number: int) -> None:
    """Get this signal when the parent dies."""
    prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number))
    if os.getppid() != parent:
        os._exit(1)  # it died before we could be tied to it


def prctl(option: int, argument: ctypes.c_ulong | ctypes.c_char_p) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def rename(name: bytes) -> None:
    """Be this in lists of processes, in place of the command line, which is overwritten where the kernel reads it."""
    prctl(PR_SET_NAME, ctypes.c_char_p(name))
    try:
        with open("/proc/self/stat", "rb") as file:
            start, end = map(int, file.read().rpartition(b")")[2].split()[ARGUMENTS])
    except (OSError, ValueError):
        return
    if start and len(name) < end - start:
        ctypes.memmove(start, name.ljust(end - start, b"\0"), end - start)


def pause(waker: int, limit_s: float | None, asked_to_end: Callable[[], None] = lambda: None) -> None:
    """Until a child ends, but no longer than `limit_s` (None: as long as it takes)."""
    poll = select.poll()
    poll.register(waker, select.POLLIN)
    poll.poll(None if limit_s is None else max(1.0, limit_s * 1000))
    if signal.SIGTERM in drain(waker):
        asked_to_end()


def drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def read(control: int) -> bytes:
    try:
        return os.read(control, 4096)
    except OSError:
        return b""  # reset: the coordinator is gone


def report(control: int, line: str) -> None:
    try:
        os.write(control, line.encode())
    except OSError:
        pass  # nobody is left to read it


def parse_cores(text: str) -> list[int]:
    return [] if text == "-" else [int(core) for core in text.split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])

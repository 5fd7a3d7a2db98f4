"""Child processes that die, or fail, at a chosen step on the file system."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import traceback
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from lo_kvs.kvs import Change, FilesystemKVS, OutcomeUnknown, Unavailable

#: What the interpreter tells its audit hooks about, among what a store does to files.
EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "fsync"})
COMMITTED, UNAVAILABLE, UNKNOWN, BROKEN = range(4)
REACHED = 16  # added where the chosen step was reached


class What(Enum):
    """What happens at the chosen step."""

    KILLED = "the process is killed"
    FULL = "no space left on the disk"


class End(NamedTuple):
    """How a child ended. `outcome`: `None` where it was killed."""

    outcome: int | None
    reached: bool


def commit_in_child(store: FilesystemKVS, folder: Path, change: Change, what: What, at: int) -> End:
    """Make `change` in a process of its own, in which `what` happens at the `at`-th step."""
    pid = os.fork()
    if pid == 0:
        _commit_and_exit(store, str(folder), change, what, at)
    return _wait(pid)


def run_in_child(work: Coroutine[Any, Any, object]) -> int:
    """Run `work` in a process of its own; returns its pid. It ends with 0 or BROKEN."""
    pid = os.fork()
    if pid:
        work.close()
        return pid
    try:
        asyncio.run(work)
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
        os._exit(BROKEN)
    os._exit(0)


def _commit_and_exit(
    store: FilesystemKVS, folder: str, change: Change, what: What, at: int
) -> None:
    step = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal step
        path = str(arguments[0]) if arguments else ""
        if event not in EVENTS or not (event == "fsync" or path.startswith(folder)):
            return
        step += 1
        if step == at and what is What.KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    code = BROKEN
    try:
        fsync = os.fsync

        def audited_fsync(file: int) -> None:
            hook("fsync", (file,))
            fsync(file)

        os.fsync = audited_fsync  # type: ignore[assignment]
        sys.addaudithook(hook)
        outcome = store._commit_one(change)
        if outcome is None:
            code = COMMITTED
        elif isinstance(outcome, Unavailable):
            code = UNAVAILABLE
        elif isinstance(outcome, OutcomeUnknown):
            code = UNKNOWN
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
    finally:
        os._exit(code + REACHED * (step >= at))


def _wait(pid: int) -> End:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return End(None, reached=True)
    code = os.WEXITSTATUS(status)
    return End(code % REACHED, reached=code >= REACHED)

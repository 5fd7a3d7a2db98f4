"""How a command runs and ends: its exit code, its last message, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn

import typer

from lo_kvs.cli.interrupts import INTERRUPTED, interrupts
from lo_kvs.plain_text import harmless

DONE: Final = 0
PROBLEMS: Final = 1  # finished with problems
USAGE: Final = 2  # wrong usage or settings; nothing was done
STRICT: Final = 3
STORE: Final = 4  # the store cannot be reached, or rejected the request
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE, as usual for a closed pipe


class Failure(Exception):
    """Ends the command with a message on standard error and an exit code."""

    def __init__(self, message: str, code: int = PROBLEMS) -> None:
        super().__init__(message)
        self.code = code


class OutputFailed(Exception):
    """Writing to standard output failed: the disk is full, or the terminal is gone."""


class _Warnings(logging.Handler):
    """Prints the library's warnings, one line each, without tracebacks.

    stores  the stores that the command uses; empty for all
    """

    stores: frozenset[str] = frozenset()

    def emit(self, record: logging.LogRecord) -> None:
        concerned: Sequence[str] = getattr(record, "stores", ())
        if not self.stores or not concerned or not self.stores.isdisjoint(concerned):
            say(f"lo-kvs: {' '.join(record.getMessage().split())}")


library_warnings = _Warnings(logging.WARNING)


def run(work: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run a command, close its stores, and exit with the code that it returns.

    Errors that users can cause become one message on standard error.
    """
    from lo_kvs.prestartup import StartupCheck

    try:
        from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Refused, Unavailable
    except StartupCheck as fault:  # a package is too old
        raise typer.Exit(_complain(fault, USAGE)) from None
    from lo_kvs import host

    host.use_own()  # also if a module of reducers imports those of a Learning Observer
    library = logging.getLogger("lo_kvs")
    library.addHandler(library_warnings)
    interrupts.reset()
    _print_anything()
    try:
        with interrupts.handled():
            code = _run(work)
            flush()
    except Failure as failure:
        code = _complain(failure, failure.code)
    except StartupCheck as fault:
        code = _complain(fault, USAGE)
    except (Unavailable, OutcomeUnknown, Refused) as error:
        code = _complain(error, STORE)
    except KVSError as error:
        code = _complain(error, PROBLEMS)
    except BrokenPipeError:  # the reader has closed the pipe
        _drop_output()
        code = PIPE_CLOSED
    except OutputFailed as error:
        _drop_output()
        code = _complain(f"cannot write to standard output: {error}", PROBLEMS)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _complain(f"{place}{error.strerror or error}", USAGE)
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = _complain("interrupted", INTERRUPTED)
    finally:
        library.removeHandler(library_warnings)
    raise typer.Exit(code)


def _run(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    async def closing() -> int:
        from lo_kvs.kvs import KVS

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            interrupts.cancel = functools.partial(loop.call_soon_threadsafe, task.cancel)
        async with KVS:
            return await work()

    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop

        make_loop = new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(closing())


def _complain(what: object, code: int) -> int:
    say(f"lo-kvs: {what}")
    return code


def say(text: str) -> None:
    """Print a message to standard error: standard output is for results."""
    # If standard error is closed, the work goes on.
    with contextlib.suppress(OSError):
        typer.echo(harmless(text, keep="\n\t"), err=True)


def show(text: str) -> None:
    """Print a result to standard output, with control characters escaped."""
    write(f"{harmless(text, keep=chr(10) + chr(9))}\n".encode(_encoding(), "backslashreplace"))


def counted(number: int, thing: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def write(data: bytes) -> None:
    """Write bytes to standard output: UTF-8, whatever the locale."""
    binary = getattr(sys.stdout, "buffer", None)
    try:
        if binary is None:  # a program that calls the command replaced it by a text stream
            sys.stdout.write(data.decode())
        else:
            binary.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error.strerror or str(error)) from None


def flush() -> None:
    """Flush standard output."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error.strerror or str(error)) from None


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"


def _print_anything() -> None:
    """Escape characters that the terminal's encoding lacks, instead of raising an error."""
    if sys.stdout is None:
        raise typer.Exit(_complain("standard output is closed", USAGE))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Discard buffered output, which would be flushed at exit and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

"""What all commands share: the settings they run with, the store they use, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from lo_kvs.cli.interrupts import INTERRUPTED, interrupts
from lo_kvs.plain_text import harmless

if TYPE_CHECKING:
    from lo_kvs.kvs import Store

DONE: Final = 0
AMISS: Final = 1  # done, but something is not as it should be
USAGE: Final = 2  # wrong usage or configuration; nothing was done
STRICT: Final = 3
STORE: Final = 4  # the store cannot be reached, or refused
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE, as other programs end then

__all__ = [
    "AMISS",
    "DONE",
    "INTERRUPTED",
    "STORE",
    "STRICT",
    "USAGE",
    "Config",
    "Failure",
    "Opened",
    "Overlays",
    "Settings",
    "StoreName",
    "counted",
    "opened",
    "run",
    "say",
    "show",
    "write",
]

CONFIG_FILE: Final = "creds.yaml"
DEFAULT_PATH: Final = ".lo_kvs"

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Settings with a `kvs` section (YAML).  [default: creds.yaml here, else a "
        "filesystem store .lo_kvs here]",
    ),
]
Overlays = Annotated[
    list[Path] | None,
    typer.Option(
        "--overlay",
        metavar="FILE",
        help="Settings over those (.yaml, .pmss); can be given again, the strongest first.",
    ),
]
StoreName = Annotated[
    str, typer.Option("--store", "-s", metavar="NAME", help="Which of the configured stores.")
]


class Failure(Exception):
    """Ends the command with a message on standard error, and an exit code."""

    def __init__(self, message: str, code: int = AMISS) -> None:
        super().__init__(message)
        self.code = code


class OutputFailed(Exception):
    """Standard output could not be written: the disk is full, or the terminal is gone."""


class _Warnings(logging.Handler):
    """Tells what the library warns of, a line each; for programs it has levels and tracebacks.

    stores  those that the command is about; none: all of them
    """

    stores: frozenset[str] = frozenset()

    def emit(self, record: logging.LogRecord) -> None:
        concerned: Sequence[str] = getattr(record, "stores", ())
        if not self.stores or not concerned or not self.stores.isdisjoint(concerned):
            say(f"lo-kvs: {' '.join(record.getMessage().split())}")


_warnings = _Warnings(logging.WARNING)


@dataclass(frozen=True)
class Settings:
    """Where a command's settings come from."""

    config: Path | None = None
    overlays: Sequence[Path] = ()
    # Whether a creds.yaml in the current folder counts where no file is named.
    find: bool = True
    # What holds where there is no file: the embedded default.
    default: Mapping[str, Any] = field(
        default_factory=lambda: {"kvs": {"default": {"type": "filesystem", "path": DEFAULT_PATH}}}
    )

    @property
    def source(self) -> Path | None:
        """The settings file, or `None` for the embedded default."""
        if self.config is None and self.find and Path(CONFIG_FILE).exists():
            return Path(CONFIG_FILE)
        return self.config

    def load(self) -> None:
        """Load the settings, without starting anything. Raises `StartupCheck`."""
        from lo_kvs.settings import load_settings

        load_settings(self.source or self.default, self.overlays)

    def start(self, *stores: str) -> None:
        """Load the settings and configure `KVS`. Raises `StartupCheck` with every fault.

        What is amiss with the servers is told as far as it concerns `stores`, by default all.
        """
        self.load()
        self.start_loaded(*stores)

    def start_loaded(self, *stores: str) -> None:
        """Configure `KVS` from the settings that `load` loaded. Raises `StartupCheck`."""
        _warnings.stores = frozenset(stores)
        import lo_kvs.kvs  # noqa: F401 - registers its startup check
        from lo_kvs.prestartup import startup_checks_and_init

        startup_checks_and_init()

    def check_there(self) -> None:
        """`Failure` where the embedded default is to be read and there is no such folder."""
        if self.source is None and not self.overlays and not Path(DEFAULT_PATH).exists():
            raise Failure(
                f"there is neither {CONFIG_FILE} nor a store {DEFAULT_PATH} in this folder: "
                "name the settings with --config, or make a store with `lo-kvs demo`",
                USAGE,
            )


@dataclass(frozen=True)
class Opened:
    """A configured store: its name, its type, and where its data lies, for people."""

    store: Store
    name: str
    type: str
    where: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type}, {self.where})"


def opened(name: str) -> Opened:
    """The store `name` of the configured router. Raises `Failure` where there is none."""
    from lo_kvs import host
    from lo_kvs.kvs import KVS
    from lo_kvs.kvs.configuration import read_block
    from lo_kvs.redis_connection import named_settings

    entries, _ = read_block(host.settings().get("kvs"), is_reserved=lambda _: False)
    for entry in entries:
        if entry.name == name:
            break
    else:
        raise Failure(f"no store is configured as {name!r}; known: {', '.join(KVS.names())}", USAGE)
    where = "in this process only"
    if entry.type == "filesystem":
        where = str(entry.options["path"])
    elif entry.type != "stub":
        prefix = entry.options.get("prefix")
        where = named_settings(entry.options.get("connection")).place + (
            f", prefix {prefix}" if prefix else ""
        )
    return Opened(getattr(KVS, name)(), name, entry.type, where)


def run(work: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run a command, close its stores, and end with the code that it returns.

    What users can bring about ends in one message on standard error.
    """
    from lo_kvs.prestartup import StartupCheck

    try:
        from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Refused, Unavailable
    except StartupCheck as fault:  # a package is too old
        raise typer.Exit(_complain(fault, USAGE)) from None
    from lo_kvs import host

    host.use_own()  # also if a module of reducers imports those of a Learning Observer
    library = logging.getLogger("lo_kvs")
    library.addHandler(_warnings)
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
        code = _complain(error, AMISS)
    except BrokenPipeError:  # the reader has seen enough
        _drop_output()
        code = PIPE_CLOSED
    except OutputFailed as error:
        _drop_output()
        code = _complain(f"cannot write to standard output: {error}", AMISS)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _complain(f"{place}{error.strerror or error}", USAGE)
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = _complain("interrupted", INTERRUPTED)
    finally:
        library.removeHandler(_warnings)
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
    """Tell the user something, on standard error: standard output is for results."""
    # Where nobody can read it the work goes on: it may have to be told on standard output.
    with contextlib.suppress(OSError):
        typer.echo(harmless(text, keep="\n\t"), err=True)


def show(text: str) -> None:
    """Print a result for people, on standard output."""
    write(f"{harmless(text, keep=chr(10) + chr(9))}\n".encode(_encoding(), "backslashreplace"))


def counted(number: int, thing: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def write(data: bytes) -> None:
    """Write to standard output: UTF-8, whatever the terminal's language is set to."""
    binary = getattr(sys.stdout, "buffer", None)
    try:
        if binary is None:  # a program that calls the command has put a text stream there
            sys.stdout.write(data.decode())
        else:
            binary.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error.strerror or str(error)) from None


def flush() -> None:
    """Write what is buffered for standard output."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error.strerror or str(error)) from None


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"


def _print_anything() -> None:
    """Let no character that a terminal cannot show end a command."""
    if sys.stdout is None:
        raise typer.Exit(_complain("standard output is closed", USAGE))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still buffered would be flushed at exit, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

"""A server process that cannot outlive the one that started it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import weakref
from pathlib import Path

_STOP_S = 10.0
_LOG_TAIL = 2_000

# The server tells the watchdog its pid before it becomes the server: however early this process
# is killed, the watchdog knows whom to end.
_SERVER = 'echo "$$"; exec "$@" >>"$0" 2>&1'
# A pipe whose other end only this process holds: it closes with the process, whatever ended it.
# Linux's PR_SET_PDEATHSIG would kill the server with the *thread* that started it, and is Linux.
_WATCHDOG = """
read -r pid && [ "$pid" != done ] || exit 0  # it was ended before it had a word to say
read -r word || { kill -9 "$pid"; rm -rf -- "$0"; }
"""


class ServerProcess:
    """A Redis server in the folder `directory`, as a child process in a session of its own.

    A session of its own: Ctrl-C in a terminal then reaches the tests, which end the server when
    they have cleaned up. Raises OSError where the program cannot be started.

    arguments      options as on the server's command line. They are written into a file, as
                   everybody on the machine can read a command line, and they may hold a password
    configuration  a file that says everything; `arguments` alone follow it on the command line
    """

    def __init__(
        self,
        program: str | os.PathLike[str],
        arguments: list[str],
        directory: Path,
        *,
        configuration: Path | None = None,
    ) -> None:
        if not os.access(program, os.X_OK):
            raise PermissionError(f"{os.fspath(program)} is not executable")
        self._log = directory / "server.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        if configuration is None:
            keep_nothing = ["--dir", str(directory), "--save", "", "--appendonly", "no"]
            configuration = directory / "server.conf"
            write_options(configuration, [*keep_nothing, *arguments])
            arguments = []
        command = [os.fspath(program), str(configuration), *arguments]
        read_end, write_end = os.pipe()
        try:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, str(directory)], stdin=read_end, start_new_session=True
            )
            self._server = subprocess.Popen(
                ["/bin/sh", "-c", _SERVER, str(self._log), *command],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                start_new_session=True,
            )
        except BaseException:
            os.close(write_end)  # which ends the watchdog as well
            raise
        finally:
            os.close(read_end)
        self.pid = self._server.pid
        self._end = weakref.finalize(
            self, _end, self._server, self._watchdog, write_end, owner=os.getpid()
        )

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._server.poll() is None

    def is_ours(self, info: str) -> bool:
        """Whether the reply to INFO came from this very process."""
        return re.search(rf"^process_id:{self.pid}\r?$", info, re.MULTILINE) is not None

    def log(self) -> str:
        """The end of what the server printed since this start."""
        text = self._log.read_bytes() if self._log.exists() else b""
        return text[self._log_start :][-_LOG_TAIL:].decode("utf-8", "replace")

    def stop(self) -> None:
        """Ask the server to end (SIGTERM), and kill it where it takes longer than 10 s."""
        self._server.terminate()
        try:
            self._server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
        self._end()

    def kill(self) -> None:
        """End the server with SIGKILL."""
        self._end()


def write_options(path: Path, arguments: list[str]) -> None:
    """Write options of a server's command line as its configuration file, for our eyes only."""
    lines: list[list[str]] = []
    for argument in arguments:
        if argument.startswith("--"):
            lines.append([argument.removeprefix("--")])
        elif lines:
            lines[-1].append(quoted(argument))
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(" ".join(line) + "\n" for line in lines)


def quoted(text: str) -> str:
    """The text as one word of a server's configuration file, whatever characters it has."""
    if re.fullmatch(r"[\w./:-]+", text, re.ASCII):
        return text
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'


def _end(
    server: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes], pipe: int, owner: int
) -> None:
    if os.getpid() != owner:  # a forked child ends too, and the server is not its own
        return
    server.kill()
    server.wait()
    with contextlib.suppress(BrokenPipeError):  # somebody ended the watchdog
        os.write(pipe, b"done\n")  # before the pipe closes: the pid may soon be somebody else's
    os.close(pipe)
    watchdog.wait()

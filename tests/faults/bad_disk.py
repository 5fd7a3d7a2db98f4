"""BadDisk: makes the n-th file call below a folder fail, in this process.

A failing write has written half of its bytes; a failing close has closed the file, as on Linux.
The system calls themselves are patched, so the store needs no changes.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

#: Calls that take a path, or an open file's number, first.
CALLS = (
    *("open", "close", "fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir"),
    *("scandir", "stat", "lstat"),
)


class BadFile:
    """An open file whose calls are counted and fail, too."""

    def __init__(self, file: Any, disk: BadDisk) -> None:
        self._file = file
        self._disk = disk
        disk.files.add(file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.files.discard(self._file.fileno())
        self._file.close()
        self._disk.step("close of a file")

    def write(self, data: bytes) -> int:
        if self._disk.fails_now("write"):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._disk.fail("write")
        return int(self._file.write(data))

    def read(self, *size: int) -> bytes:
        self._disk.step("read")
        return bytes(self._file.read(*size))

    def flush(self) -> None:
        self._disk.step("flush")
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class BadDisk:
    """`with BadDisk(folder, at=3, error=errno.EIO) as disk:` the third call below `folder` fails.

    for_good  whether every later call fails as well
    calls     the calls in order, up to and including the one that failed
    """

    def __init__(self, folder: str, *, at: int, error: int, for_good: bool = False) -> None:
        self._folder = folder
        self._at = at
        self._error = error
        self._for_good = for_good
        self._kept: dict[str, Callable[..., Any]] = {}
        self._io_open: Any = io.open
        self._flock: Any = fcntl.flock
        self.calls: list[str] = []
        self.files: set[int] = set()
        self.done = 0

    @property
    def reached(self) -> bool:
        """Whether a call has failed."""
        return self.done >= self._at

    def fails_now(self, call: str) -> bool:
        """Count the call; return whether it must fail."""
        self.done += 1
        self.calls.append(call)
        return self.done == self._at or (self._for_good and self.done > self._at)

    def fail(self, call: str) -> None:
        raise OSError(self._error, f"{os.strerror(self._error)} ({call})")

    def step(self, call: str) -> None:
        if self.fails_now(call):
            self.fail(call)

    def __enter__(self) -> Self:
        for name in CALLS:
            self._kept[name] = getattr(os, name)
            setattr(os, name, self._patched(name, self._kept[name]))
        setattr(io, "open", self._open_file)  # noqa: B010 - mypy takes it for a function
        setattr(fcntl, "flock", self._patched("flock", self._flock))  # noqa: B010
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, call in self._kept.items():
            setattr(os, name, call)
        setattr(io, "open", self._io_open)  # noqa: B010
        setattr(fcntl, "flock", self._flock)  # noqa: B010

    def _is_ours(self, target: object) -> bool:
        if isinstance(target, int):
            return target in self.files
        return os.fspath(target).startswith(self._folder)  # type: ignore[call-overload,no-any-return]

    def _patched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def patched(target: Any, *arguments: Any, **options: Any) -> Any:
            if not self._is_ours(target):
                return call(target, *arguments, **options)
            if name == "close":  # Linux has closed it, whatever it says
                self.files.discard(target)
                call(target)
                self.step(name)
                return None
            self.step(name)
            result = call(target, *arguments, **options)
            if name == "open":
                self.files.add(result)
            return result

        return patched

    def _open_file(self, target: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not self._is_ours(target):
            return self._io_open(target, mode, *arguments, **options)
        self.step("open of a file")
        return BadFile(self._io_open(target, mode, *arguments, **options), self)

"""Describes the machine of a run: hardware, versions and load."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from lo_kvs.kvs import codec

PACKAGES: Final = ("lo-kvs", "redis", "hiredis", "orjson", "uvloop")


def machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine, and its system."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores_used": _cores_used(),
        "memory_bytes": _memory_bytes(),
    }


def versions() -> dict[str, str | None]:
    """The versions of Python and of the packages that matter; `None` where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {**found, "codec": codec.IMPLEMENTATION}


def load() -> float | None:
    """The load average of the last minute; `None` if unknown."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


def resident_bytes() -> int | None:
    """The memory of this process in bytes; `None` if the system does not report it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def stay_on_cores(count: int) -> None:
    """Keep this process, and what it starts from now on, on its first `count` cores.

    So that a figure of a large machine compares with that of a small one: server and client
    then share them. Where the system cannot do that, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _cores_used() -> int | None:
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None

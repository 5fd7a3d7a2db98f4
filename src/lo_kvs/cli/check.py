"""`lo-kvs check`: checks the settings, the stores and their Redis servers."""

from __future__ import annotations

import asyncio
import json
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lo_kvs.cli.check_output import show_report
from lo_kvs.cli.common import (
    DONE,
    PROBLEMS,
    STORE,
    USAGE,
    Config,
    Overlays,
    Settings,
    opened,
    run,
    write,
)
from lo_kvs.plain_text import harmless_json

if TYPE_CHECKING:
    from lo_kvs.kvs.configuration import Entry

PACKAGES: Final = ("lo-kvs", "redis", "hiredis", "orjson", "uvloop", "pmss")
PROBES: Final = 5
#: How many PINGs and bare scripts are timed.
TIMED: Final = 51
#: Seconds after which a store counts as unreachable: the user is waiting.
CHECK_TIMEOUT_S: Final = 2.0


def check(
    config: Config = None,
    overlay: Overlays = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the same as one JSON object, for programs.")
    ] = False,
) -> None:
    """Check settings, codec, stores and Redis servers.

    All errors in the settings are listed at once. One key is read from each store. For each
    server: whether it answers and how fast, its version, role and persistence, whether it
    evicts keys or failed to save, whether the user has the rights that the stores need, and
    whether stores overwrite each other's keys. Nothing is written.

      lo-kvs check
      lo-kvs check --config creds.yaml --overlay site.pmss
      lo-kvs check --json

    Anything that the user may not see on a server is reported as `unknown`, which is not an
    error.

      Exit codes:
        0  no problems
        1  it works, with a warning: states can be lost, or stores disturb each other, or
           the JSON codec and the engine run in pure Python
        2  the settings are invalid
        4  a store or server cannot be reached, or cannot do its work
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        report = await _look(settings)
        if as_json:
            write(harmless_json(json.dumps(report, ensure_ascii=False, indent=2)).encode() + b"\n")
        else:
            show_report(report)
        return int(report["exit_code"])

    run(work)


async def _look(settings: Settings) -> dict[str, Any]:
    """The whole report of the command, as JSON values."""
    from lo_kvs import compiled
    from lo_kvs.kvs import codec
    from lo_kvs.prestartup import StartupCheck

    report: dict[str, Any] = {
        "versions": {package: _version(package) for package in PACKAGES},
        "python": f"{platform.python_version()} ({platform.machine()})",
        "codec": codec.IMPLEMENTATION,
        "engine": codec.IMPLEMENTATION,  # all of what can be compiled, or nothing
        "pure_because": compiled.reason() or None,
        "settings": None if settings.source is None else str(settings.source),
        "faults": None,
        "stores": [],
        "servers": [],
    }
    code = DONE if compiled.is_used() else PROBLEMS
    try:
        settings.load()
        _shorten_timeouts()
        entries = _configured()
        code = max(code, _look_at_servers(entries, report))
    except StartupCheck as fault:
        return report | {"faults": str(fault), "exit_code": USAGE}
    unreached = {
        name for server in report["servers"] if not server["reached"] for name in server["stores"]
    }
    for entry in entries:
        store = await _probe(entry, asked=entry.name not in unreached)
        report["stores"].append(store)
        code = max(code, DONE if store["answers"] else STORE)
    return report | {"exit_code": code}


def _configured() -> list[Entry]:
    """Configure `KVS` without checking the servers, and return the entries of the stores.

    The startup checks are not run: their findings about servers are part of the report.
    Raises `StartupCheck` that lists every error.
    """
    from lo_kvs.kvs import KVS
    from lo_kvs.kvs.configuration import read_block
    from lo_kvs.prestartup import StartupCheck
    from lo_kvs.settings import settings
    from lo_kvs.stream_analytics.limits import limits_startup_check

    faults: list[str] = []
    block = settings.get("kvs")
    try:
        KVS.configure(block)
    except StartupCheck as fault:
        faults.append(str(fault))
    try:
        limits_startup_check()
    except StartupCheck as fault:
        faults.append(str(fault))
    if faults:
        raise StartupCheck("\n".join(faults))
    return read_block(block, is_reserved=lambda _: False)[0]


def _look_at_servers(entries: Sequence[Entry], report: dict[str, Any]) -> int:
    """Add the servers to the report, and return the exit code for them."""
    from lo_kvs.kvs.checks.findings import Severity
    from lo_kvs.kvs.checks.startup import look

    codes = {Severity.WARNING: PROBLEMS, Severity.ERROR: STORE}
    servers = look(entries, times=TIMED)
    report["servers"] = [server.as_json() for server in servers]
    return max([codes.get(server.worst, DONE) for server in servers], default=DONE)


async def _probe(entry: Entry, *, asked: bool) -> dict[str, Any]:
    """Read a key of a store a few times, unless its server is known to be unreachable."""
    from lo_kvs.kvs import KVSError

    target = opened(entry.name)
    result: dict[str, Any] = {
        "name": target.name,
        "type": target.type,
        "where": target.where,
        "answers": False,
        "round_trip_ms": None,
        "error": None,
    }
    if not asked:
        return result | {"error": "its server does not answer"}
    times: list[float] = []
    try:
        for _ in range(PROBES):
            started = time.perf_counter()
            async with asyncio.timeout(CHECK_TIMEOUT_S * 2):
                await target.store.exists("lo-kvs check")
            times.append(time.perf_counter() - started)
    except TimeoutError:
        return result | {"error": f"no answer within {CHECK_TIMEOUT_S * 2:g} s"}
    except (KVSError, OSError) as error:
        return result | {"error": str(error)}
    # The first read may include connecting.
    return result | {"answers": True, "round_trip_ms": round(min(times) * 1000, 3)}


def _shorten_timeouts() -> None:
    from lo_kvs.settings import settings

    if isinstance(block := settings.get("redis_connection") or {}, dict):
        settings["redis_connection"] = _with_short_timeouts(block)
    if isinstance(blocks := settings.get("redis_connections"), dict):
        settings["redis_connections"] = {
            name: _with_short_timeouts(block or {}) if isinstance(block or {}, dict) else block
            for name, block in blocks.items()
        }


def _with_short_timeouts(block: dict[str, Any]) -> dict[str, Any]:
    for option in ("redis_timeout", "redis_retry_for"):
        given = block.get(option, CHECK_TIMEOUT_S)
        if isinstance(given, int | float):
            block = {**block, option: min(given, CHECK_TIMEOUT_S)}
    return block


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

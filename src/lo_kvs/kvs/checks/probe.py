"""What a Redis server tells about itself, asked in two round trips, with nothing written.

A right is looked for by using it in a way that changes nothing: SET with XX on a key that
is not there, MSET with a key too many. A server looks at rights, memory and its own state
before it looks at the arguments, so its answer says what a commit would meet. That works on
every version and for every user, unlike ACL DRYRUN.
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

#: What came, or why it did not.
Answer: TypeAlias = Any | RedisError

#: Commands that touch no key. The digest is of no script: NOSCRIPT means that it may be run.
KEYLESS: Final = (
    ("EVAL", "return 1", 0),
    ("EVALSHA", "0" * 40, 0),
    ("SCAN", "0", "COUNT", 1, "TYPE", "string"),
)
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
#: Errors that a PING may meet at a server that answers: no right to it, writes stopped.
THERE: Final = frozenset({"NOPERM", "MISCONF"})


@dataclass(frozen=True)
class Probe:
    """One right that a store needs, and what the server said when it was used.

    command  its name
    pattern  of the keys that the store uses it on; `None` for a command without keys
    words    what the server said, where that was an error
    """

    command: str
    pattern: str | None
    words: str


@dataclass(frozen=True)
class Answers:
    """What a server told. Times are in microseconds, medians."""

    ping_us: float | None
    script_us: float | None
    info: Answer
    hello: Answer
    save: Answer
    appendfsync: Answer
    probes: list[Probe]

    @property
    def cluster(self) -> bool:
        """Whether the server says that it is a node of a cluster."""
        info = self.info if isinstance(self.info, Mapping) else {}
        hello = self.hello if isinstance(self.hello, Mapping) else {}
        return "cluster" in (info.get("redis_mode"), hello.get("mode"))


def ask(client: Redis, prefixes: set[str], *, times: int = 1) -> Answers:
    """Ask a server, for stores with these prefixes; times are of so many tries.

    Raises what redis-py raises where the server cannot be reached, lets nobody in, or stops
    answering.
    """
    # It connects, so it is not timed.
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
    """Which nodes serve the slots of the cluster that the server `asked` belongs to.

    Their addresses are those that the store uses. Raises `RedisError` where the server does not
    tell.
    """
    (answer,) = _round_trip(client, [("CLUSTER", "SLOTS")])
    if isinstance(answer, RedisError):
        raise answer
    slots = SlotTable()
    slots.load(answer, asked=asked)
    return slots


def _uses(prefixes: set[str]) -> Iterator[tuple[str | None, tuple[Any, ...]]]:
    """Each right that reading and committing need: on which keys, and a harmless use."""
    yield from ((None, words) for words in KEYLESS)
    absent = uuid.uuid4().hex
    for prefix in sorted(prefixes):
        # A key as reducers make them: a user may be limited to those.
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
    """The answer to each command, errors among them, without a transaction around them."""
    with client.pipeline(transaction=False) as pipeline:
        # As they came: redis-py's shapes of answers fail where a server answers oddly.
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
    """The value of one setting, as text; an error where the server told of none."""
    found = _texts(answer)
    if isinstance(found, Mapping):
        return found.get(name, ResponseError(f"the server has no setting {name}"))
    return found if isinstance(found, RedisError) else ProtocolMismatch("CONFIG GET", answer)


def _texts(answer: Answer) -> Answer:
    """A mapping with text where RESP2 gives lists, and bytes."""
    if isinstance(answer, list | tuple):
        answer = dict(zip(answer[::2], answer[1::2], strict=False))
    if not isinstance(answer, Mapping):
        return answer
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

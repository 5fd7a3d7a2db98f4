"""Histories that several processes recorded on one store: some order explains what each saw.

The checker is put to the test as well: against all orders of small histories, and on recorded
ones that were spoiled.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.faults.history import ANYTHING, NOTHING, Operation, Value, is_linearizable
from tests.faults.recorder import STUDENT, Recorder
from tests.faults.tally import Tally
from tests.faults.workers import released, tell

from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

History = list[Operation]
PROCESSES = 3
TASKS = 4
OPERATIONS = 110
EVENTS = 50
#: Many of these last longer than a store of these tests waits, so that outcomes are unknown.
FAULTS = {
    Fault.CUT_BEFORE: 0.05,
    Fault.CUT_AFTER: 0.1,
    Fault.SWALLOW_CLOSE: 0.15,
    Fault.SWALLOW_STALL: 0.1,
    Fault.STALL: 0.05,
}


def recorded(kind: str, place: str, seed: int, **options: object) -> dict[str, History]:
    """What `PROCESSES` processes did side by side, by key."""
    recorders = [
        Recorder(kind, place, name=name, seed=seed, tasks=TASKS, **options)
        for name in "abcdef"[:PROCESSES]
    ]
    with released(recorders):
        histories = [recorder.history() for recorder in recorders]
    return {
        key: [operation for history in histories for operation in history[key]]
        for key in histories[0]
    }


def unknown(history: History) -> int:
    return sum(operation.returned is None for operation in history)


# -- the stores ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redis", "filesystem"])
def test_each_operation_takes_effect_at_one_moment(
    kind: str, redis_url: str, tmp_path: Path, seed: int, tally: Tally
) -> None:
    place = redis_url if kind == "redis" else str(tmp_path)
    histories = recorded(kind, place, seed, mode="keys", operations=OPERATIONS)
    assert all(is_linearizable(history) for history in histories.values())
    operations = sum(map(len, histories.values()))
    assert operations >= PROCESSES * TASKS * OPERATIONS
    caught, spoiled = caught_of_spoiled(list(histories.values()), random.Random(seed))
    assert caught == spoiled > 30
    tally("T18", operations, f"{kind}: an order exists; {spoiled} of {spoiled} spoiled ones caught")


def test_operations_of_unknown_outcome_took_effect_once_or_never(
    redis_server: RedisServer, redis_url: str, seed: int, tally: Tally
) -> None:
    proxy = FaultProxy(
        "127.0.0.1", redis_server.port, seed=seed, faults=FAULTS, only=is_commit, stall_s=0.3
    )
    with proxy.run_in_thread():
        histories = recorded(
            "redis", proxy.url, seed, mode="keys", operations=60, timeout=0.1, retry_for=0.15
        )
    assert all(is_linearizable(history) for history in histories.values())
    count = sum(map(unknown, histories.values()))
    made = sum(made_of_unknown(history) for history in histories.values())
    tell(f"{proxy.counts.total()} faults, {count} unknown outcomes, {made} seen to be made")
    assert count > 30
    assert made > 0  # else nothing is known of those that were
    caught, spoiled = caught_of_spoiled(list(histories.values()), random.Random(seed))
    assert caught == spoiled > 20
    tally(
        "T18",
        sum(map(len, histories.values())),
        f"redis behind {proxy.counts.total()} faults: an order exists, {count} outcomes unknown",
    )


def is_commit(request: bytes) -> bool:
    return b"EVAL" in request


def made_of_unknown(history: History) -> int:
    """How many operations of unknown outcome put what somebody saw."""
    seen = {each.seen for each in history}
    return sum(each.returned is None and each.put in seen for each in history)


@pytest.mark.parametrize("kind", ["redis", "filesystem"])
def test_each_event_has_its_place_in_one_order(
    kind: str, redis_url: str, tmp_path: Path, seed: int, tally: Tally
) -> None:
    """States that engines keep are no older than what was answered before the event came."""
    place = redis_url if kind == "redis" else str(tmp_path)
    history = recorded(kind, place, seed, mode="events", operations=EVENTS)[STUDENT]
    places = sorted(int(str(operation.put)) for operation in history)
    assert places == list(range(1, PROCESSES * TASKS * EVENTS + 1))
    assert is_linearizable(history, start="0")
    one, other = first_apart(history)
    spoiled = [
        replace(each, seen=other.seen, put=other.put)
        if each is one
        else replace(each, seen=one.seen, put=one.put)
        if each is other
        else each
        for each in history
    ]
    assert not is_linearizable(spoiled, start="0")
    tally("T18", len(history), f"{kind}: events of {PROCESSES * TASKS} engines stand in one order")


def first_apart(history: History) -> tuple[Operation, Operation]:
    """Two operations, the first of which had returned before the second was invoked."""
    for one in history:
        for other in history:
            if one.returned is not None and one.returned < other.invoked:
                return one, other
    raise AssertionError("nothing came after anything else")


# -- recorded histories, spoiled -------------------------------------------------------------


def caught_of_spoiled(histories: Sequence[History], draw: random.Random) -> tuple[int, int]:
    """How many spoiled histories the checker refuses, of how many. None of them has an order."""
    spoiled = [
        spoiled
        for history in histories
        for spoil in (swap_two_reads, drop_a_write, read_what_is_gone, lose_an_update)
        for _ in range(6)
        if (spoiled := spoil(history, draw)) is not None
    ]
    return sum(not is_linearizable(each) for each in spoiled), len(spoiled)


def writes(history: History) -> dict[Value, Operation]:
    """The operations that put a value that no other one puts, by that value."""
    return {each.put: each for each in history if each.put not in {None, NOTHING}}


def before(one: Operation, other: Operation) -> bool:
    return one.returned is not None and one.returned < other.invoked


def reads_of_writes(history: History) -> list[tuple[Operation, Operation]]:
    """The reads, each with the write whose value it saw, where both returned."""
    written = writes(history)
    return [
        (each, written[each.seen])
        for each in history
        if each.put == NOTHING and each.seen in written and written[each.seen].returned is not None
    ]


def swap_two_reads(history: History, draw: random.Random) -> History | None:
    """Each of two reads sees what the other one saw, of which one was written before."""
    pairs = reads_of_writes(history)
    drawn = [(*draw.choice(pairs), *draw.choice(pairs)) for _ in range(200)]
    choice = [
        (read, later)
        for read, write, later, rewrite in drawn
        if before(read, later) and before(write, rewrite)
    ]
    if not choice:
        return None
    one, other = draw.choice(choice)
    return changed(
        history, {one: replace(one, seen=other.seen), other: replace(other, seen=one.seen)}
    )


def drop_a_write(history: History, draw: random.Random) -> History | None:
    """A value that was seen comes from nowhere."""
    seen = {each.seen for each in history if each.returned is not None}
    choice = [write for value, write in writes(history).items() if value in seen]
    dropped = draw.choice(choice)
    return [each for each in history if each is not dropped]


def read_what_is_gone(history: History, draw: random.Random) -> History | None:
    """A read sees what another write had overwritten before the read began."""
    reads = [each for each in history if each.put == NOTHING]
    written = [each for each in writes(history).values() if each.returned is not None]
    read = draw.choice(reads)
    gone = [each for each in written if before(each, read) and each.seen == ANYTHING]
    stale = [one for one in written if any(before(one, each) for each in gone)]
    return changed(history, {read: replace(read, seen=draw.choice(stale).put)}) if stale else None


def lose_an_update(history: History, draw: random.Random) -> History | None:
    """Two updates of one and the same value, both made."""
    updates = [
        each
        for each in writes(history).values()
        if each.seen not in {None, ANYTHING} and each.returned is not None
    ]
    if len(updates) < 2:
        return None
    one, other = draw.sample(updates, 2)
    return changed(history, {one: replace(one, seen=other.seen)})


def changed(history: History, new: dict[Operation, Operation]) -> History:
    return [new.get(each, each) for each in history]


# -- the checker -----------------------------------------------------------------------------


def op(seen: Value, put: Value, invoked: int, returned: int | None) -> Operation:
    return Operation(seen, put, invoked, returned)


WITH_AN_ORDER: dict[str, History] = {
    "nothing": [],
    "a read of nothing": [op(None, NOTHING, 0, 1)],
    "one after another": [op(ANYTHING, "a", 0, 1), op("a", "b", 2, 3), op("b", NOTHING, 4, 5)],
    "a read of what is being written": [op(ANYTHING, "a", 0, 9), op("a", NOTHING, 1, 2)],
    "or not yet": [op(ANYTHING, "a", 0, 9), op(None, NOTHING, 1, 2), op("a", NOTHING, 3, 4)],
    "two writes at once": [
        op(ANYTHING, "a", 0, 9),
        op(ANYTHING, "b", 0, 9),
        op("b", NOTHING, 1, 2),
        op("a", NOTHING, 3, 4),
    ],
    "unknown, and made long after": [
        op(ANYTHING, "a", 0, None),
        op(None, NOTHING, 5, 6),
        op("a", NOTHING, 7, 8),
    ],
    "unknown, and never made": [op(None, "a", 0, None), op(None, "b", 5, 6), op("b", "c", 7, 8)],
    "removed": [op(ANYTHING, "a", 0, 1), op("a", None, 2, 3), op(None, "b", 4, 5)],
}

WITHOUT_ORDER: dict[str, History] = {
    "a value from nowhere": [op("a", NOTHING, 0, 1)],
    "a write that is not seen": [op(ANYTHING, "a", 0, 1), op(None, NOTHING, 2, 3)],
    "a lost update": [op(ANYTHING, "a", 0, 1), op("a", "b", 2, 9), op("a", "c", 2, 9)],
    "seen before it was begun": [op("a", NOTHING, 0, 1), op(ANYTHING, "a", 2, 3)],
    "old after new": [
        op(ANYTHING, "a", 0, 9),
        op("a", NOTHING, 1, 2),
        op(None, NOTHING, 3, 4),
    ],
    "there and back": [
        op(ANYTHING, "a", 0, 9),
        op(ANYTHING, "b", 0, 9),
        op("a", NOTHING, 1, 2),
        op("b", NOTHING, 3, 4),
        op("a", NOTHING, 5, 6),
    ],
    "unknown, and made twice": [
        op(ANYTHING, "a", 0, None),
        op("a", NOTHING, 1, 2),
        op(ANYTHING, "b", 3, 4),
        op("a", NOTHING, 5, 6),
    ],
    "unknown, and undone": [
        op(None, "a", 0, None),
        op("a", NOTHING, 1, 2),
        op(None, NOTHING, 3, 4),
    ],
}


@pytest.mark.parametrize("name", WITH_AN_ORDER)
def test_linearizable_history(name: str) -> None:
    assert is_linearizable(WITH_AN_ORDER[name])


@pytest.mark.parametrize("name", WITHOUT_ORDER)
def test_history_that_is_not_linearizable(name: str) -> None:
    assert not is_linearizable(WITHOUT_ORDER[name])


VALUES = st.sampled_from(["a", "b", "c"])
ANY_OPERATION = st.builds(
    lambda seen, put, invoked, took: op(seen, put, invoked, took and invoked + took),
    st.sampled_from([None, ANYTHING, "a", "b", "c"]),
    st.sampled_from([NOTHING, NOTHING, None, "a", "b", "c"]),
    st.integers(0, 8),
    st.sampled_from([None, 1, 1, 2, 4]),
)


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.lists(ANY_OPERATION, max_size=5))
def test_checker_against_every_order(history: History) -> None:
    assert is_linearizable(history) == some_order_explains(history)


def some_order_explains(history: History) -> bool:
    """The same, by trying every order of every choice of what took effect."""
    returned = [each for each in history if each.returned is not None]
    unknown = [each for each in history if each.returned is None]
    chosen = itertools.chain.from_iterable(
        itertools.combinations(unknown, count) for count in range(len(unknown) + 1)
    )
    return any(
        explains(order) for made in chosen for order in itertools.permutations([*returned, *made])
    )


def explains(order: Sequence[Operation]) -> bool:
    value: Value = None
    for at, operation in enumerate(order):
        if any(before(later, operation) for later in order[at + 1 :]):
            return False
        if operation.seen not in {ANYTHING, value}:
            return False
        if operation.put != NOTHING:
            value = operation.put
    return True

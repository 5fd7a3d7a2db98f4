"""Contract tests for commits: each change is atomic and has its own outcome."""

from __future__ import annotations

import asyncio
import functools

from lo_kvs.kvs import (
    Change,
    Conflict,
    Guard,
    Outcome,
    OutcomeUnknown,
    Store,
    Unavailable,
)
from lo_kvs.kvs.batching.deadlines import RETRY_FLOOR_MIN_S
from lo_kvs.testing.contract.base import (
    HANGS_AFTER_S,
    StoreUnderTest,
    on_store,
    together,
)

#: Keys that one change may hold, also where keys are spread over nodes.
A, B, C, D, E, F = map(together, "abcdef")

#: The three things that can stand at a guard key before a commit.
BEFORE: dict[str, bytes | None] = {"absent": None, "there": b"1", "null": b"null"}


class CommitContract(StoreUnderTest):
    """What `commit` and `submit` make of changes."""

    @on_store
    async def test_guards(self, store: Store) -> None:
        for name, before in BEFORE.items():
            for expected in (None, Guard.ANY, b"1", b"null", b"2", b"", b"1 "):
                if before is None:
                    await store.remove(name)
                else:
                    self.raw_set(name, before)
                (outcome,) = await store.commit([Change(name, expected, {name: b"[3]"})])
                if expected is Guard.ANY or expected == before:
                    assert outcome is None
                    assert self.raw_get(name) == b"[3]"
                else:
                    assert outcome == Conflict(before)
                    assert self.raw_get(name) == before

    @on_store
    async def test_conflict_tells_what_a_retry_needs(self, store: Store) -> None:
        await store.set("key", {"n": 1})
        (outcome,) = await store.commit([Change("key", b"stale", {"key": b"2"})])
        assert isinstance(outcome, Conflict)
        assert outcome.current == self.raw_get("key")
        assert await store.commit([Change("key", outcome.current, {"key": b"2"})]) == [None]
        assert await store["key"] == 2

    @on_store
    async def test_several_puts_are_all_or_nothing(self, store: Store) -> None:
        puts = {B: b"2", A: b"1", C: None, D: b"2"}
        self.raw_set(C, b"3")
        assert await store.commit([Change(A, b"other", puts)]) == [Conflict(None)]
        assert [self.raw_get(key) for key in (A, B, C, D)] == [None, None, b"3", None]
        assert await store.commit([Change(A, None, puts)]) == [None]
        assert [self.raw_get(key) for key in (A, B, C, D)] == [b"1", b"2", None, b"2"]
        assert await store.commit([Change(A, None, {A: b"9", D: None})]) == [Conflict(b"1")]
        assert [self.raw_get(key) for key in (A, B, C, D)] == [b"1", b"2", None, b"2"]

    @on_store
    async def test_guard_that_is_not_put(self, store: Store) -> None:
        self.raw_set(A, b"1")
        assert await store.commit([Change(A, b"1", {B: b"1", C: b"1"})]) == [None]
        assert await store.commit([Change(A, None, {B: b"2"})]) == [Conflict(b"1")]
        assert await store.commit([Change(E, None, {D: b"1"})]) == [None]
        assert await store.multiget([A, B, C, D, E]) == [1, 1, 1, 1, None]

    @on_store
    async def test_guard_without_puts(self, store: Store) -> None:
        self.raw_set("guard", b"1")
        changes = [
            Change("guard", b"1", {}),
            Change("absent", b"1", {}),
            Change("absent", None, {}),
        ]
        assert await store.commit(changes) == [None, Conflict(None), None]
        assert await store.keys() == ["guard"]

    @on_store
    async def test_removal(self, store: Store) -> None:
        await store.multiset({A: 1, B: 2, C: 3})
        changes = [
            Change(A, b"1", {A: None}),
            Change(B, b"no", {B: None}),
            Change(C, Guard.ANY, {C: None, D: b"4"}),
            Change(E, None, {E: None, F: None}),
        ]
        assert await store.commit(changes) == [None, Conflict(b"2"), None, None]
        assert sorted(await store.keys()) == [B, D]
        found = [self.raw_get(key) for key in (A, B, C, D, E, F)]
        assert found == [None, b"2", None, b"4", None, None]

    @on_store
    async def test_outcomes_stand_in_the_order_of_the_changes(self, store: Store) -> None:
        await store.multiset({f"key {at}": at for at in range(0, 1_200, 3)})
        changes = [Change(f"key {at}", None, {f"key {at}": b"-1"}) for at in range(1_200)]
        outcomes = await store.commit(changes)
        expected = [None if at % 3 else Conflict(str(at).encode()) for at in range(1_200)]
        assert outcomes == expected
        found = await store.multiget([change.guard for change in changes])
        assert found == [-1 if at % 3 else at for at in range(1_200)]

    @on_store
    async def test_no_changes(self, store: Store) -> None:
        assert await store.commit([]) == []
        await store.multiset({})
        assert await store.keys() == []

    @on_store
    async def test_one_key_in_several_changes_of_a_call(self, store: Store) -> None:
        changes = [
            Change(A, None, {A: b"1"}),
            Change(A, b"1", {A: b"2", B: b"1"}),
            Change(A, b"1", {A: b"3"}),
            Change(A, Guard.ANY, {A: b"4"}),
            Change(A, b"4", {A: None}),
            Change(A, None, {A: b"5"}),
        ]
        expected: list[Outcome] = [None, None, Conflict(b"2"), None, None, None]
        assert await store.commit(changes) == expected
        assert await store.multiget([A, B]) == [5, 1]

    @on_store
    async def test_changes_that_share_keys_are_each_whole(self, store: Store) -> None:
        pairs = [(A, B), (B, A), (C, A), (B, C)] * 10
        changes = [
            Change(one, Guard.ANY, {one: str(at).encode(), two: str(at).encode()})
            for at, (one, two) in enumerate(pairs)
        ]
        assert await store.commit(changes) == [None] * len(changes)
        # The order is not promised; whichever was made last, it left both of its keys.
        left = dict(zip((A, B, C), await store.multiget([A, B, C]), strict=True))
        assert any(all(left[key] == at for key in pairs[at]) for at in left.values())

    @on_store
    async def test_submitted_changes_of_one_guard_are_made_in_order(self, store: Store) -> None:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcomes: dict[int, Outcome] = {}

        def done(at: int, outcome: Outcome) -> None:
            outcomes[at] = outcome
            if len(outcomes) == 30:
                answered.set_result(None)

        for at in range(30):
            key = f"key {at % 3}"
            before = str(at - 3).encode() if at >= 3 else None
            change = Change(key, before, {key: str(at).encode()})
            store.submit(change, lambda outcome, at=at: done(at, outcome))  # type: ignore[misc]
        assert not outcomes  # nobody is called back before `submit` has returned
        await asyncio.wait_for(answered, HANGS_AFTER_S)
        assert set(outcomes.values()) == {None}
        assert await store.multiget([f"key {at}" for at in range(3)]) == [27, 28, 29]

    @on_store
    async def test_deadlines_are_for_stores_that_do_not_answer(self, store: Store) -> None:
        """Where a store answers, a call is made even when its deadline has passed.

        Whatever is handed in is tried for a quarter of a second at least. A store that takes
        longer may give up what has no more time, but not earlier, and it says so.
        """
        clock = asyncio.get_running_loop().time
        now = clock()
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcomes: list[tuple[Outcome, float]] = []
        stored: list[bytes | None] = [None]  # what may be there in the end

        def done(after: bytes, outcome: Outcome) -> None:
            outcomes.append((outcome, clock() - now))
            if outcome is None or isinstance(outcome, OutcomeUnknown):
                stored.append(after)
            if len(outcomes) == 13:
                answered.set_result(None)

        before: bytes | None = None
        for at, deadline in enumerate([*(now - 1, None, now + 1, now + 1e9) * 3, now - 1]):
            after = str(at).encode()
            change = Change("key", before, {"key": after})
            store.submit(change, functools.partial(done, after), deadline)
            before = after
        await asyncio.wait_for(answered, HANGS_AFTER_S)
        # Each builds on the one before: where one was given up, those after it meet conflicts.
        given_up = [each for each in outcomes if each[0] is not None]
        assert not given_up or _is_late(*given_up[0]), given_up[0]
        (data,) = await store.read(["key"])
        assert data in stored if given_up else data == b"12"
        for deadline in (now - 1, now + 1, now + 1e9):
            read = asyncio.gather(
                store.read(["key", "absent"], deadline=deadline), return_exceptions=True
            )
            started = clock()
            (found,) = await read
            assert found == [data, None] or _is_late(found, clock() - started), found
            started = clock()
            change = Change("key", data, {"key": data})
            (outcome,) = await store.commit([change], deadline=deadline)
            assert outcome is None or _is_late(outcome, clock() - started), outcome

    @on_store
    async def test_callback_that_fails_stops_nobody_else(self, store: Store) -> None:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def fail(_outcome: Outcome) -> None:
            raise LookupError("the callback failed")

        store.submit(Change("a", None, {"a": b"1"}), fail)
        store.submit(Change("b", None, {"b": b"2"}), answered.set_result)
        assert await asyncio.wait_for(answered, HANGS_AFTER_S) is None
        await store.set("c", 3)
        assert await store.multiget("abc") == [1, 2, 3]


def _is_late(outcome: object, took_s: float) -> bool:
    """Whether a store gave up, and not before it had tried for as long as it must."""
    return isinstance(outcome, Unavailable | OutcomeUnknown) and took_s >= RETRY_FLOOR_MIN_S

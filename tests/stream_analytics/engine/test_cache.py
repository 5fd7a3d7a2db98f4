"""The cache: bounded by memory; the least recently used entries are evicted first."""

from __future__ import annotations

import random
from collections import OrderedDict

from lo_kvs.stream_analytics.engine.cache import MEMBER_BYTES, STATE_BYTES, Cache, Cached


class Named(Cached):
    def __init__(self, name: int) -> None:
        super().__init__()
        self.name = name


def left_by(cache: Cache) -> list[int]:
    """The names of the evicted entries, in order."""
    names: list[int] = []
    while (oldest := cache.surplus()) is not None:
        assert isinstance(oldest, Named)
        names.append(oldest.name)
    return names


def test_the_least_recently_used_are_evicted_first() -> None:
    cache, model = Cache(7 * STATE_BYTES), OrderedDict[int, None]()
    states = [Named(number) for number in range(20)]
    draw = random.Random(5)
    for _ in range(2000):
        state = draw.choice(states)
        if state.name in model:
            cache.take_out(state)
            del model[state.name]
        cache.put(state)
        model[state.name] = None
        expected = [model.popitem(last=False)[0] for _ in range(len(model) - 7)]
        assert left_by(cache) == expected
        assert cache.bytes == len(model) * STATE_BYTES


def test_cache_without_memory_stays_empty() -> None:
    cache, state = Cache(0), Named(1)
    cache.put(state)
    assert left_by(cache) == [1]
    assert cache.bytes == 0


def test_size_of_a_state() -> None:
    cache, state = Cache(10**9), Named(1)

    def taken(data: bytes | None) -> int:
        state.measure(data)
        cache.put(state)
        cache.take_out(state)
        cache.put(state)
        found = cache.bytes
        cache.take_out(state)
        assert cache.bytes == 0
        return found

    assert taken(None) == STATE_BYTES
    text = b'{"a":1,"b":' + b'"' + b"x" * 100 + b'"}'
    expected = STATE_BYTES + 2 * len(text) + MEMBER_BYTES
    assert taken(text) == expected
    assert taken(text + b"    ") == expected  # about the same: not counted again
    assert taken(b"[" + b"1," * 99 + b"1]") == STATE_BYTES + 2 * 201 + 99 * MEMBER_BYTES
    assert taken(None) == STATE_BYTES

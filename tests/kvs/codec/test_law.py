"""The codec's law on generated values, with the standard library's json as the judge.

Each value goes through both twins: they must agree byte for byte, and

- refuse exactly what json.dumps refuses, NaN and Infinity, and keys that become one;
- otherwise give back what json.loads(json.dumps(value)) gives, type for type;
- call a value plain exactly when it comes back as it was.
"""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, defaultdict
from types import ModuleType
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lo_kvs.kvs.codec import NOT_PLAIN
from lo_kvs.kvs.errors import NotJSON


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Row(list[Any]):
    pass


class Pair(NamedTuple):
    left: Any
    right: Any


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2**70


# Lone surrogates, and halves that meet: what a text editor's logs are full of.
texts = st.text(max_size=6) | st.text(
    st.sampled_from('aé😀\ud83d\ude00\ud800\udfff\x00"\\'), max_size=4
)
integers = st.integers() | st.integers(-(2**66), 2**66) | st.sampled_from([2**63, -(2**63), 2**64])
floats = st.floats(allow_nan=False, allow_infinity=False)
plain_scalars = st.none() | st.booleans() | integers | floats | texts

odd_scalars = (
    texts.map(Text)
    | integers.map(Number)
    | floats.map(Real)
    | st.sampled_from(Level)
    | st.just(-0.0)
)
refused_scalars = st.sampled_from(
    [float("nan"), float("inf"), Real("-inf"), b"x", {1}, object(), 1j]
)


def plain_containers(members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(members, max_size=4) | st.dictionaries(texts, members, max_size=4)


scalar_keys = texts | texts.map(Text) | integers | floats | st.booleans() | st.none()
keys = scalar_keys | st.sampled_from([1, "1", 1.0, "true", "null", Level.LOW])


def odd_containers(members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        plain_containers(members),
        st.lists(members, max_size=3).map(tuple),
        st.lists(members, max_size=3).map(Row),
        st.builds(Pair, members, members),
        st.dictionaries(keys, members, max_size=4),
        st.dictionaries(texts, members, max_size=3).map(OrderedDict),
        st.dictionaries(keys, members, max_size=3).map(lambda items: defaultdict(int, items)),
    )


plain = st.recursive(plain_scalars, plain_containers, max_leaves=10)
convertible = st.recursive(plain_scalars | odd_scalars, odd_containers, max_leaves=8)
anything = st.recursive(
    plain_scalars | odd_scalars | refused_scalars | st.floats(), odd_containers, max_leaves=6
)


class KeysBecomeOne(ValueError):
    pass


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise KeysBecomeOne
    return dict(pairs)


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types everywhere, in the same order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and (not isinstance(left, float) or repr(left) == repr(right))


def obey(twins: dict[str, ModuleType], value: Any) -> bool:
    try:
        text = json.dumps(value, allow_nan=False)
        expected = json.loads(text, object_pairs_hook=distinct)
    except (TypeError, ValueError):
        refusals = set()
        for twin in twins.values():
            try:
                written = twin.encode(value)
            except NotJSON as refusal:
                refusals.add(str(refusal))
            else:
                raise AssertionError(f"{twin.__name__} wrote {written!r}")
        assert len(refusals) == 1
        return False
    results = {twin.encode_state(value) for twin in twins.values()}
    assert len(results) == 1, results
    encoded, is_plain = results.pop()
    assert is_plain == same(value, expected)
    assert same(json.loads(encoded), expected)
    for twin in twins.values():
        assert twin.encode(value) == encoded
        for written in (encoded, text.encode()):  # ours, and the standard library's
            assert same(twin.decode(written), expected)
    return True


def law(values: int) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=values, deadline=None, suppress_health_check=slow, database=None)


@law(4000)
@given(value=plain)
def test_plain_values(twins: dict[str, ModuleType], value: Any) -> None:
    if obey(twins, value):  # the halves of one character can make two keys one
        assert twins["pure"].encode_state(value)[1] == same(value, json.loads(json.dumps(value)))


@law(4000)
@given(value=convertible)
def test_convertible_values(twins: dict[str, ModuleType], value: Any) -> None:
    obey(twins, value)


@law(3000)
@given(value=anything)
def test_any_values(twins: dict[str, ModuleType], value: Any) -> None:
    obey(twins, value)


def containers(value: Any) -> set[int]:
    """The identities of every dict and list in a value."""
    if isinstance(value, dict):
        return {id(value)}.union(*map(containers, value.values()))
    if isinstance(value, list):
        return {id(value)}.union(*map(containers, value))
    return set()


@law(1000)
@given(value=st.one_of(plain, convertible, anything))
def test_plain_copies(twins: dict[str, ModuleType], value: Any) -> None:
    copies = [twin.plain_copy(value) for twin in twins.values()]
    if any(copy is NOT_PLAIN for copy in copies):
        assert all(copy is NOT_PLAIN for copy in copies)
        return
    assert all(copy == value and type(copy) is type(value) for copy in copies)
    # What is vouched for is plain, and nothing in it can be changed but the copy itself.
    assert {twin.encode_state(value)[1] for twin in twins.values()} == {True}
    for twin, copy in zip(twins.values(), copies, strict=True):
        assert twin.encode_plain(copy) == twin.encode(value)
    if isinstance(value, (dict, list)):
        assert all(copy is not value for copy in copies)
        assert all(containers(copy).isdisjoint(containers(value)) for copy in copies)

"""Keys and their names on a cluster: each key one name, each name its key, halves together."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lo_kvs.kvs.redis.cluster.slots import SLOTS, SlotTable, slot_of, tag_of
from lo_kvs.kvs.redis.key_names import cluster_name, cluster_pattern, key_of_cluster_name
from lo_kvs.testing.contract.cases import KEYS

LAYOUTS = {
    "Internal,mod.fn,STUDENT:S": "Internal,mod.fn,{STUDENT:S}",
    "External,m.f,EventField.doc_id:D,STUDENT:S": "External,m.f,{EventField.doc_id:D,STUDENT:S}",
    "Internal,mod.fn": "Internal,{mod.fn}",
    "Internal,mod.fn,": "Internal,{mod.fn,}",
    "Internal,mod.fn,}": "Internal,{mod.fn,}}",
    "Internal,a{b,STUDENT:S": "Internal,{a{b,STUDENT:S}",
    "Internal,mod.fn,{STUDENT:S}": "Internal,mod.fn,{{STUDENT:S}}",
    "Internal,,x": "Internal,,{x}",
    "Internal,": "Internal,{}",
    "Internal": "Internal",
    "internal,mod.fn,STUDENT:S": "internal,mod.fn,STUDENT:S",
    "NLP_CACHE_3f2a": "NLP_CACHE_3f2a",
    "a{b}c": "a{b}c",
    "": "",
}

#: Names on a cluster that no key has.
FOREIGN = [
    "Internal,mod.fn,STUDENT:S",
    "Internal,mod.fn",
    "Internal,mod.fn{STUDENT:S}",
    "Internal,mod,fn,{STUDENT:S}",
    "Internal,{mod.fn,STUDENT:S}",
    "Internal,mod.fn,{STUDENT:S",
    "Internal,mod.fn,{STUDENT:S}x",
    "Internal,mod.fn,{}",
    "Internal,mod.fn,{}x}",
    "Internal,{",
]

# Short texts of what the layout looks at: every way in which they can meet is tried.
parts = st.lists(
    st.sampled_from(["Internal", "External", ",", "{", "}", "a", "b:", "é"]), max_size=9
)
hostile = parts.map("".join)
reducers = st.builds("{},{}".format, st.sampled_from(["Internal", "External"]), hostile)
keys = st.one_of(hostile, reducers, st.text(), st.sampled_from(KEYS))


@pytest.mark.parametrize("key", LAYOUTS)
def test_names(key: str) -> None:
    assert cluster_name(key) == LAYOUTS[key]
    assert key_of_cluster_name(LAYOUTS[key]) == key


@pytest.mark.parametrize("name", FOREIGN)
def test_names_without_a_key(name: str) -> None:
    assert key_of_cluster_name(name) is None


@given(keys)
def test_key_can_be_derived_from_its_name(key: str) -> None:
    assert key_of_cluster_name(cluster_name(key)) == key


@given(keys, keys)
@example("Internal,a,b", "Internal,{a,b}")
@example("Internal,{a,b}", "Internal,a,{b}")
def test_different_keys_have_different_names(key: str, other: str) -> None:
    assert (cluster_name(key) == cluster_name(other)) is (key == other)


@given(keys)
def test_name_belongs_to_at_most_one_key(name: str) -> None:
    key = key_of_cluster_name(name)
    assert key is None or cluster_name(key) == name


@given(hostile)
def test_both_halves_of_a_state_share_a_slot(rest: str) -> None:
    halves = [cluster_name(f"{kind},{rest}").encode() for kind in ("Internal", "External")]
    slots = {slot_of(half) for half in halves}
    # Only where nothing can stand in the braces they part, and their changes are refused.
    assert len(slots) == 1 or rest == "" or rest.startswith("}")


@given(st.sampled_from(["m.f", "other.g", "é"]), st.text(min_size=1).filter(lambda t: t[0] != "}"))
def test_all_reducers_of_an_entity_share_a_slot(reducer: str, selector: str) -> None:
    entity = slot_of(cluster_name(f"Internal,m.f,{selector}").encode())
    assert slot_of(cluster_name(f"External,{reducer},{selector}").encode()) == entity


@given(keys, st.integers(0, 30))
def test_pattern_matches_every_key_with_the_prefix(key: str, length: int) -> None:
    # Redis's own matching is tried by the contract; here the pattern is read as it is meant.
    pattern = cluster_pattern("p*:", key[:length])
    pieces = re.findall(r"\\(.)|(\*)|(.)", pattern, re.DOTALL)
    expression = "".join(".*" if star else re.escape(one or two) for one, star, two in pieces)
    assert re.fullmatch(expression, "p*:" + cluster_name(key), re.DOTALL)


def test_slots_are_those_of_the_specification() -> None:
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"a{b") != slot_of(b"b")


def test_every_slot_has_a_tag() -> None:
    tags = [tag_of(slot) for slot in range(SLOTS)]
    assert [slot_of(f"__lokvs:writer:x:{{{tag}}}".encode()) for tag in tags] == list(range(SLOTS))
    assert all(tag.isalnum() and len(tag) == 5 for tag in tags)


def test_map_of_a_cluster() -> None:
    slots = SlotTable()
    assert slots.address_of(5) is None
    entries = [[0, 99, [b"", 1, b"id"], [b"replica", 2, b"id"]], [101, 200, [b"two", 3, b"id"]]]
    slots.load(entries, asked=("one", 9))
    assert [slots.address_of(slot) for slot in (0, 99, 100, 101, 200, 201)] == [
        ("one", 1), ("one", 1), None, ("two", 3), ("two", 3), None,
    ]  # fmt: skip
    assert slots.primaries == (("one", 1), ("two", 3))
    assert slots.version == 1
    slots.load(entries, asked=("one", 9))
    assert slots.version == 1
    slots.move(5, ("three", 4))
    assert slots.address_of(5) == ("three", 4)
    assert slots.version == 2
    assert ("three", 4) in slots.primaries

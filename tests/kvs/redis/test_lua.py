"""The Lua scripts do what their headers say and what the Python code expects."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from importlib import resources
from itertools import product

import hiredis
import pytest
import redis

from lo_kvs.kvs import Change, Guard, Outcome
from lo_kvs.kvs.batching.batcher import Pending
from lo_kvs.kvs.redis.batch_limits import CHANGES
from lo_kvs.kvs.redis.protocol import commit_script as python_side

SCRIPTS = sorted(
    file.name.removesuffix(".lua")
    for file in resources.files("lo_kvs.lua").iterdir()
    if file.name.endswith(".lua")
)
TEXTS = {name: python_side.Script.load(name).text.decode() for name in SCRIPTS}
HEADERS = {name: text.partition("]]")[0] for name, text in TEXTS.items()}
BODIES = {name: text.partition("]]")[2] for name, text in TEXTS.items()}


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_every_script_is_loaded() -> None:
    assert SCRIPTS
    for name in SCRIPTS:
        script = getattr(python_side, name.upper())
        assert isinstance(script, python_side.Script)
        assert script.name == name


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_has_its_parts(name: str) -> None:
    header = HEADERS[name]
    assert header.startswith(f"--[[ {name}: ")
    for part in ("KEYS[", "Returns", "Cost"):
        assert re.search(rf"^  {re.escape(part)}", header, re.MULTILINE), part
    assert "#!" not in TEXTS[name]  # Redis 6.2 has no shebangs, and 7 then refuses reads


@pytest.mark.parametrize("name", SCRIPTS)
def test_keys_and_arguments_of_the_header_are_those_of_the_code(name: str) -> None:
    header, body = HEADERS[name], BODIES[name]
    described = dict(re.findall(r"^  (ARGV\[\d+…?\])\s+(\w+)", header, re.MULTILINE))
    named = [described[f"ARGV[{at}]"] for at in range(1, 1 + sum("…" not in k for k in described))]
    bound = re.findall(r"^local ([\w, ]+) = (ARGV\[1\].*)$", body, re.MULTILINE)
    assert [names.split(", ") for names, _ in bound] == ([named] if named else [])
    for names, values in bound:
        assert values == ", ".join(f"ARGV[{at}]" for at in range(1, 1 + names.count(",") + 1))
    rest = [key for key in described if "…" in key]
    used_beyond = "ARGV[arg_at]" in body
    assert used_beyond is bool(rest)
    if rest:
        assert rest == [f"ARGV[{len(named) + 1}…]"]
        assert re.search(rf"arg_at = \w*,? ?{len(named) + 1}\b|, {len(named) + 1}\b", body)
    if not described:
        assert "ARGV" not in body
    assert ("KEYS[1]" in header) is ("KEYS[1]" in body)


@pytest.mark.parametrize("name", SCRIPTS)
def test_errors_of_the_header_are_those_of_the_code(name: str) -> None:
    assert set(re.findall(r"LOKVS_\w+", HEADERS[name])) == set(
        re.findall(r"error_reply\('(LOKVS_\w+) ", BODIES[name])
    )


def pack(changes: list[Change], number: int = 1) -> python_side.Call:
    waiting: deque[Pending[Change, Outcome]] = deque((change, print) for change in changes)
    call = python_side.packed_call(
        waiting,
        [],
        python_side.WriterSettings(b"__lokvs:writer:test", b"p:", record_ttl_ms=60_000),
        number,
    )
    assert not waiting
    return call


def words(call: python_side.Call) -> list[bytes]:
    """What follows the script's name: numkeys, KEYS, ARGV."""
    reader = hiredis.Reader()
    reader.feed(call.by_digest())
    found = reader.gets()
    assert isinstance(found, list)
    return found[2:]


def args(call: python_side.Call) -> list[bytes]:
    found = words(call)
    return found[1 + int(found[0]) :]


def run(client: redis.Redis, call: python_side.Call) -> list[bytes | None]:
    reply = client.execute_command("EVAL", python_side.COMMIT.text, *words(call))  # type: ignore[no-untyped-call]
    assert isinstance(reply, list)
    return reply


def test_layout_letters_match_those_sent_by_python() -> None:
    header = HEADERS["commit"]
    guards = re.search(r"guard  (a) .*\n +(n) .*\n +(v) ", header)
    unread = re.search(r" (A)  like a", header)
    puts = re.search(r"put    (s) .*\n +(r) .*\n +(S) (R)  .*\n +(X) .*\n +(g) .*\n +(d) ", header)
    assert guards
    assert unread
    assert puts
    sent: set[str] = set()
    guard_letters: set[str] = set()
    same, large = b"1", b"1" * 1000
    for expected, data in product((None, Guard.ANY, b"0"), (same, large, None)):
        puts_of_it = {"g": data, "a": same, "b": same, "c": None, "d": large, "e": large}
        layout = args(pack([Change("g", expected, puts_of_it)]))[4].decode()
        assert layout.endswith(".")
        guard_letters.add(layout[0])
        sent |= set(layout[1:-1])
    assert guard_letters == {*guards.groups(), *unread.groups()}
    assert sent == set(puts.groups())


VALUES: dict[str, bytes | None] = {"absent": None, "empty": b"", "one": b"1", "big": b"2" * 600}


@pytest.mark.parametrize("before", VALUES)
@pytest.mark.parametrize("put", VALUES)
@pytest.mark.parametrize("expected", [None, Guard.ANY, b"", b"1", b"2" * 600])
def test_commit_does_what_its_header_says(
    client: redis.Redis, before: str, put: str, expected: bytes | Guard | None
) -> None:
    def stored() -> Mapping[str, bytes | None]:
        return {key: client.get(f"p:{key}") for key in ("g", "a", "b", "c")}  # type: ignore[misc]

    client.set("p:c", b"c")
    if (old := VALUES[before]) is not None:
        client.set("p:g", old)
    untouched = stored()
    new = VALUES[put]
    puts = {"g": new, "a": new, "b": b"x", "c": None}
    made = expected is Guard.ANY or expected == old
    call = pack([Change("g", expected, puts)])
    reply = run(client, call)
    assert reply == ([b"c"] if made else [b"n", old])
    assert stored() == (puts if made else untouched)
    # The same call again: the same outcome, and nothing is done any more.
    client.set("p:g", b"meanwhile")
    assert run(client, call) == reply[:1]
    assert client.get("p:g") == b"meanwhile"
    # A call before the last one is refused.
    run(client, pack([Change("x", None, {})], number=3))
    with pytest.raises(redis.ResponseError, match="LOKVS_STALE"):
        run(client, pack([Change("g", Guard.ANY, {"g": b"stale"})], number=2))
    assert client.get("p:g") == b"meanwhile"


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("expected", [None, Guard.ANY, b"old"])
@pytest.mark.parametrize("foreign", ["g", "a", "b"])
def test_nothing_is_done_if_a_key_is_not_a_string(
    client: redis.Redis, foreign: str, expected: bytes | Guard | None, size: int
) -> None:
    """Whether it is read or asked for its kind; and the others of the call are made."""
    if expected == b"old":
        client.set("p:g", expected)
    client.delete(f"p:{foreign}")
    client.rpush(f"p:{foreign}", "x")
    data = b"1" * size
    changes = [
        Change("before", None, {"before": data, "removed": None}),
        Change("g", expected, {"g": data, "a": data, "b": None}),
        Change("after", Guard.ANY, {"after": data}),
    ]
    assert run(client, pack(changes)) == [b"ctc", f"p:{foreign}".encode()]
    assert client.lrange(f"p:{foreign}", 0, -1) == [b"x"]
    others = {"g", "a", "b"} - {foreign}
    assert {key for key in others if client.exists(f"p:{key}")} == (
        {"g"} & others if expected == b"old" else set()
    )
    assert client.mget("p:before", "p:after") == [data, data]


def test_commit_with_the_maximum_number_of_changes(client: redis.Redis) -> None:
    count = CHANGES
    puts = {f"{at}": [f"{at}/{part}" for part in range(20)] for at in range(count)}
    changes = [
        Change(guard, None, {guard: b"1", **dict.fromkeys(keys, b"2")})
        for guard, keys in puts.items()
    ]
    assert run(client, pack(changes)) == [b"c" * count]
    assert client.dbsize() == count * 21 + 1
    changes = [Change(g, b"1", dict.fromkeys([g, *keys])) for g, keys in puts.items()]
    assert run(client, pack(changes, number=2)) == [b"c" * count]
    assert client.dbsize() == 1
    conflicts = [Change(guard, b"1", {guard: b"1"}) for guard in puts]
    assert run(client, pack(conflicts, number=3)) == [b"n" * count, *[None] * count]

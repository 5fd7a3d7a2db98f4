"""Finds out whether two configured stores share their data, so that one sees the other's keys."""

from __future__ import annotations

from pathlib import Path

from lo_kvs.kvs.checks.startup import look
from lo_kvs.kvs.configuration import REDIS_TYPES, Entry
from lo_kvs.kvs.redis.key_names import KINDS
from lo_kvs.redis_connection import named_settings


def shared_place(one: Entry, other: Entry, key_prefix: str = "") -> str | None:
    """What two stores share, for keys that start with `key_prefix`; `None` for nothing.

    Redis servers are asked for their identity (1 s at most), because one server can have many
    addresses. If a server does not report it, servers with different addresses count as different.
    """
    if one.name == other.name:
        return "they are the same store"
    if one.type == other.type == "filesystem":
        path = Path(one.options["path"]).resolve()
        same = path == Path(other.options["path"]).resolve()
        return f"both store their files in {path}" if same else None
    if {one.type, other.type} <= REDIS_TYPES:
        return _shared_names(one, other, key_prefix)
    return None


def _shared_names(one: Entry, other: Entry, key_prefix: str) -> str | None:
    mine, others = (str(entry.options.get("prefix", "")) for entry in (one, other))
    tail = _same_on_clusters(key_prefix)
    a, b = mine + tail, others + tail
    if not (a.startswith(b) or b.startswith(a)) or not _one_database(one, other):
        return None
    place = named_settings(one.options.get("connection")).place
    if mine == others:
        return f"both use {place} with " + (f"the prefix {mine!r}" if mine else "no prefix")
    prefixes = f"the prefixes {mine!r} and {others!r}"
    return f"both use {place}, and with {prefixes} one lists keys of the other"


def _one_database(one: Entry, other: Entry) -> bool:
    places = [named_settings(entry.options.get("connection")) for entry in (one, other)]
    if places[0] == places[1]:
        return True
    of_each: dict[str, set[tuple[str, int]]] = {one.name: set(), other.name: set()}
    for report in look([one, other]):
        for name in report.stores:
            of_each[name].add((report.identity, report.db))
    return not of_each[one.name].isdisjoint(of_each[other.name])


def _same_on_clusters(key_prefix: str) -> str:
    """The part of the prefix that key names on a cluster start with as well, without braces."""
    kind, comma, _ = key_prefix.partition(",")
    return f"{kind}," if comma and kind in KINDS else key_prefix

"""The rules that turn a Redis server's replies into findings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from lo_kvs.kvs.changes import RESERVED_PREFIX
from lo_kvs.kvs.checks.findings import REACHABLE, Finding, Severity
from lo_kvs.kvs.checks.probe import Answers
from lo_kvs.kvs.configuration import Entry
from lo_kvs.kvs.redis.protocol.server_errors import words_of

VERSION_MIN: Final = (6, 2)
SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})
#: Used for large values; without them, scripts are used. MULTI and EXEC cannot be tested alone.
TRANSACTIONS: Final = frozenset({"WATCH", "UNWATCH", "COPY"})
#: Errors of a server that currently accepts no writes from any user, with the fix.
NO_WRITES: Final = {
    "OOM": "raise `maxmemory`, or remove keys",
    "MISCONF": "fix the server's disk: saving failed, and no writes are accepted until it works",
    "NOREPLICAS": "bring the replicas back, or lower `min-replicas-to-write`",
}


def judge(answers: Answers, entries: Sequence[Entry]) -> Iterator[Finding]:
    """All findings about a server that was reached, for the stores that use it."""
    names = tuple(entry.name for entry in entries)
    yield _reached(answers, names)
    yield _version(answers, names)
    yield _role(answers, names)
    yield from _scripts_and_rights(answers, entries)
    persistent = tuple(entry.name for entry in entries if entry.type == "redis")
    if isinstance(answers.info, Mapping):
        if persistent:
            yield _persistence(answers, answers.info, persistent)
            yield from _saves(answers.info, persistent)
        yield from _eviction(answers.info, names)
    else:
        hidden = "whether keys are or were evicted"
        if persistent:
            hidden = "whether data is persisted, whether the last save failed, " + hidden
        yield _unknown("INFO", names, hidden, answers.info)


def version_of(text: object) -> tuple[int, ...] | None:
    """`7.0.15` as numbers, or `None` if the text is not a version."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", str(text))
    return tuple(int(part) for part in found.groups("0")) if found else None


def _reached(answers: Answers, names: tuple[str, ...]) -> Finding:
    times = [
        f"{what} takes {us:,.0f} us"
        for what, us in (("a PING", answers.ping_us), ("a bare script", answers.script_us))
        if us is not None
    ]
    return Finding(Severity.OK, REACHABLE, names, ", ".join(["it answers", *times]))


def _version(answers: Answers, names: tuple[str, ...]) -> Finding:
    info = answers.info if isinstance(answers.info, Mapping) else {}
    hello = answers.hello if isinstance(answers.hello, Mapping) else {}
    said = info.get("redis_version", hello.get("version"))
    program, shown = "Redis", said
    # Valkey reports Redis 7.2.4 for old clients, besides its own version.
    if "valkey_version" in info or hello.get("server") == "valkey":
        program, shown = "Valkey", info.get("valkey_version", said)
    version = version_of(said)
    if version is None:
        way = "6.2 is the oldest that is supported"
        what = f"could not determine the version: the server reports {said!r}"
        return Finding(Severity.UNKNOWN, "version", names, what, way)
    if version < VERSION_MIN:
        return Finding(
            Severity.ERROR,
            "version",
            names,
            f"{program} {shown} is too old",
            "install 6.2 or later, or Valkey",
        )
    return Finding(Severity.OK, "version", names, f"{program} {shown}")


def _role(answers: Answers, names: tuple[str, ...]) -> Finding:
    roles = [
        str(reply["role"])
        for reply in (answers.info, answers.hello)
        if isinstance(reply, Mapping) and "role" in reply
    ]
    if not roles:
        return _unknown("role", names, "whether it is a replica", answers.hello)
    if roles[0] in ("master", "primary"):
        return Finding(Severity.OK, "role", names, "it is a primary")
    primary = ""
    if isinstance(answers.info, Mapping) and "master_host" in answers.info:
        primary = f" of {answers.info['master_host']}:{answers.info.get('master_port')}"
    what = f"it is a replica{primary}: it accepts no writes"
    return Finding(
        Severity.ERROR, "role", names, what, "name the primary in `redis_connection`, or promote it"
    )


def _persistence(answers: Answers, info: Mapping[str, Any], names: tuple[str, ...]) -> Finding:
    aof = info.get("aof_enabled")
    if aof == 1:
        fsync = answers.appendfsync
        each = "" if isinstance(fsync, RedisError) else f", appendfsync {fsync}"
        return Finding(Severity.OK, "persistence", names, f"appendonly is on{each}")
    if isinstance(answers.save, RedisError):
        hidden = "whether there are save points (appendonly is off)"
        if aof is None:
            hidden = "whether data is persisted"
        return _unknown("persistence", names, hidden, answers.save)
    if str(answers.save).strip():
        what = f"snapshots are on (save {answers.save}): a crash loses writes since the last one"
        return Finding(Severity.OK, "persistence", names, what)
    return Finding(
        Severity.WARNING,
        "persistence",
        names,
        "nothing is persisted: a restart of the server loses every state",
        "set `appendonly yes` or `save` on the server",
    )


def _saves(info: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Finding]:
    failed = [
        what
        for name, what in (
            ("rdb_last_bgsave_status", "snapshot"),
            ("aof_last_write_status", "write to the append-only file"),
            ("aof_last_bgrewrite_status", "rewrite of the append-only file"),
        )
        if info.get(name, "ok") != "ok"
    ]
    for what in failed:
        yield Finding(
            Severity.WARNING,
            "saves",
            names,
            f"the last {what} failed",
            "see the server's log: the disk may be full, or its directory not writable",
        )
    if not failed and "rdb_last_bgsave_status" in info:
        yield Finding(Severity.OK, "saves", names, "no save has failed")


def _eviction(info: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy")
    if policy is None:
        yield _unknown("eviction", names, "the `maxmemory-policy`", "INFO does not contain it")
    elif policy == "noeviction":
        yield Finding(Severity.OK, "eviction", names, "maxmemory-policy is noeviction")
    else:
        # volatile-…, too: values of redis_ephemeral and all writers' records have a TTL.
        when = "" if info.get("maxmemory") else " (no `maxmemory` is set yet)"
        yield Finding(
            Severity.WARNING,
            "eviction",
            names,
            f"maxmemory-policy is {policy}: when memory is short, acknowledged events are "
            f"evicted silently{when}",
            "set `maxmemory-policy noeviction`",
        )
    evicted = info.get("evicted_keys")
    if isinstance(evicted, int) and evicted:
        yield Finding(
            Severity.WARNING,
            "evicted keys",
            names,
            f"{evicted:,} keys were evicted since the server started; states may be lost",
            "set `maxmemory-policy noeviction` and enough `maxmemory`",
        )


def _scripts_and_rights(answers: Answers, entries: Sequence[Entry]) -> Iterator[Finding]:
    names = tuple(entry.name for entry in entries)
    commands: set[str] = set()
    patterns: dict[str, str] = {}
    refusals: dict[str, str] = {}
    for probe in answers.probes:
        code = probe.words.split(" ")[0]
        if code in NO_WRITES:
            refusals.setdefault(code, probe.words)
        elif code == "NOPERM" and probe.pattern is not None and " run the " not in probe.words:
            patterns.setdefault(probe.pattern, probe.words)
        elif code == "NOPERM" or "unknown command" in probe.words:
            commands.add(probe.command)
    yield from _commands(commands, names)
    for pattern, words in patterns.items():
        way = f"allow them for this user (ACL SETUSER … ~{pattern})"
        whose, lacking = "the store's keys", _names_of(pattern, entries)
        if pattern == f"{RESERVED_PREFIX}*":
            whose, lacking = "the records that prevent applying a commit twice", names
        elif pattern == "*":
            way += ", or give the store a `prefix` that the user's key patterns allow"
        what = f"no right to {whose}, {pattern} ({words})"
        yield Finding(Severity.ERROR, "rights", lacking, what, way)
    if not commands - SCRIPTS - TRANSACTIONS and not patterns:
        yield Finding(Severity.OK, "rights", names, "the user has all rights that the stores need")
    for code, words in refusals.items():
        way = NO_WRITES[code]
        yield Finding(Severity.ERROR, "writes", names, f"it accepts no writes: {words}", way)


def _commands(withheld: set[str], names: tuple[str, ...]) -> Iterator[Finding]:
    """Findings about the commands that the user may not use."""
    scripts = sorted(withheld & SCRIPTS)
    if scripts:
        way = f"allow it for this user (ACL SETUSER … {_granted(scripts)})"
        what = f"Lua scripts are not allowed: no right to {', '.join(scripts)}"
        yield Finding(Severity.ERROR, "Lua", names, what, way)
    else:
        yield Finding(Severity.OK, "Lua", names, "scripts are allowed")
    transactions = sorted(withheld & TRANSACTIONS)
    what = "written with WATCH/MULTI"
    if transactions:
        what = (
            f"written with Lua, which is slower: no right to {', '.join(transactions)} "
            "(ACL SETUSER … +watch +unwatch +multi +exec +copy)"
        )
    yield Finding(Severity.OK, "large values", names, what)
    rest = sorted(withheld - SCRIPTS - TRANSACTIONS)
    if rest:
        way = f"allow them for this user (ACL SETUSER … {_granted(rest)})"
        what = f"no right to the commands {', '.join(rest)}"
        yield Finding(Severity.ERROR, "rights", names, what, way)


def _names_of(pattern: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    """The names of the stores whose key pattern, `prefix*`, is `pattern`."""
    return tuple(
        entry.name for entry in entries if f"{entry.options.get('prefix', '')}*" == pattern
    )


def _granted(commands: Sequence[str]) -> str:
    return " ".join(f"+{command.lower()}" for command in commands)


def _unknown(check: str, names: tuple[str, ...], hidden: str, why: object) -> Finding:
    words = words_of(why) if isinstance(why, RedisError) else str(why)
    return Finding(Severity.UNKNOWN, check, names, f"could not determine {hidden} ({words})")

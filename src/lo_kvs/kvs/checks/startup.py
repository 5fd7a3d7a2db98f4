"""Checks every Redis server that the configured stores use, at startup and for `lo-kvs check`.

At startup the findings are logged. A store with `require: true` does not start after a warning
or an error; a finding that could not be determined never prevents the start.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

from lo_kvs.kvs.checks.findings import (
    REACHABLE,
    Finding,
    ServerReport,
    Severity,
    prefix_clashes,
)
from lo_kvs.kvs.checks.probe import ask, slots_of
from lo_kvs.kvs.checks.rules import judge
from lo_kvs.kvs.configuration import REDIS_TYPES, Entry
from lo_kvs.kvs.redis.cluster.slots import SLOTS
from lo_kvs.kvs.redis.protocol.server_errors import classify, words_of
from lo_kvs.redis_connection import RedisSettings, factory, named_settings
from lo_kvs.redis_connection.factory import secrets_of
from lo_kvs.redis_connection.redaction import Secrets
from lo_kvs.redis_connection.tls import TLSRefused

logger = logging.getLogger(__name__)

#: Seconds to connect, and to wait for a reply: a start must not hang on a server.
CHECK_TIMEOUT_S: Final = 1.0
#: A check must not prevent a program from starting: any error that a server, or something else
#: at its address, causes in the client becomes a finding.
CLIENT_ERRORS: Final = (
    RedisError,
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    TypeError,
    LookupError,
    RecursionError,
)


def startup_faults(entries: Sequence[Entry]) -> list[str]:
    """Check the servers of these stores, log problems, and return those that prevent the start.

    These are all warnings and errors of stores with `require: true`; they are not logged as
    well. Raises `StartupCheck` if the settings of a connection are invalid.
    """
    faults: list[str] = []
    required = {entry.name for entry in entries if entry.options.get("require")}
    for report in look(entries):
        for finding in report.findings:
            refused = sorted(required.intersection(finding.stores))
            if finding.severity >= Severity.WARNING and refused:
                faults += [
                    f"kvs.{name}.require: Redis at {report.place}: {finding}" for name in refused
                ]
            elif finding.severity > Severity.OK:
                logger.warning(
                    "Redis at %s (%s): %s",
                    report.place,
                    ", ".join(finding.stores),
                    finding,
                    extra={"stores": finding.stores},
                )
    return faults


def look(entries: Sequence[Entry], *, times: int = 1) -> list[ServerReport]:
    """A report on each server that these stores use; stores without a server are skipped.

    Servers are checked in parallel: all that do not answer take one second together. `times` is
    how many PINGs and scripts are timed. Raises `StartupCheck` if the settings of a connection
    are invalid.
    """
    on_redis = [entry for entry in entries if entry.type in REDIS_TYPES]
    if not on_redis:
        return []
    sharing: dict[RedisSettings, list[Entry]] = {}
    for entry in on_redis:
        sharing.setdefault(named_settings(entry.options.get("connection")), []).append(entry)
    with ThreadPoolExecutor(max_workers=len(sharing)) as threads:
        looks = [
            threads.submit(_look_at_all, where, stores, times) for where, stores in sharing.items()
        ]
        reports = [report for each in looks for report in each.result()]
    return _with_clashes(reports, entries)


def look_at_server(
    where: RedisSettings, entries: Sequence[Entry], *, times: int = 1
) -> ServerReport:
    """The report on one server, for the stores that use it. Errors become findings."""
    client = factory.blocking_client(where, CHECK_TIMEOUT_S)
    names = tuple(entry.name for entry in entries)
    db = int(client.connection_pool.connection_kwargs.get("db") or 0)
    prefixes = {str(entry.options.get("prefix", "")) for entry in entries}
    secrets = secrets_of(where)
    try:
        answers = ask(client, prefixes, times=times)
        findings = [_cleaned(each, secrets) for each in judge(answers, entries)]
    except CLIENT_ERRORS as error:
        found = _cleaned(_unreachable(error, names), secrets)
        return ServerReport(where.place, where.place, db, names, [found])
    finally:
        client.close()
    identity = where.place
    if isinstance(answers.info, dict):
        identity = str(answers.info.get("run_id", identity))
    return ServerReport(
        where.place,
        identity,
        db,
        names,
        findings,
        cluster=answers.cluster,
        ping_us=answers.ping_us,
        script_us=answers.script_us,
    )


def _look_at_all(where: RedisSettings, entries: Sequence[Entry], times: int) -> list[ServerReport]:
    """The report on the server and, if it is a cluster node, on every primary of the cluster.

    The primaries are checked at the addresses that the store uses.
    """
    seeds = [where.at(*node) for node in where.seed_nodes()] if where.cluster else [where]
    for seed in seeds:  # any node knows the others; unreachable ones are skipped
        where, first = seed, look_at_server(seed, entries, times=times)
        if first.reached:
            break
    if not first.cluster:
        return [first]
    (asked,) = where.seed_nodes()[:1]
    names = first.stores
    client = factory.blocking_client(where, CHECK_TIMEOUT_S)
    try:
        slots = slots_of(client, asked)
    except CLIENT_ERRORS as error:
        what = f"could not determine the other nodes of the cluster ({words_of(error)})"
        found = _cleaned(Finding(Severity.UNKNOWN, "cluster", names, what), secrets_of(where))
        return [dataclasses.replace(first, findings=[*first.findings, found])]
    finally:
        client.close()
    # A replica can be a seed node, but no data is written to it.
    others = [where.at(*node) for node in slots.primaries if node != asked]
    reports = [first] if asked in slots.primaries or not others else []
    if others:
        with ThreadPoolExecutor(max_workers=len(others)) as threads:
            look_at = functools.partial(look_at_server, entries=entries, times=times)
            reports += threads.map(look_at, others)
    if slots.unserved:
        what = f"{slots.unserved:,} of the cluster's {SLOTS:,} slots are served by no node"
        fix = "bring their nodes back, or assign the slots (redis-cli --cluster fix)"
        found = Finding(Severity.ERROR, "cluster", names, what, fix)
        reports[0] = dataclasses.replace(reports[0], findings=[*reports[0].findings, found])
    return reports


def _cleaned(finding: Finding, secrets: Secrets) -> Finding:
    """The finding without secrets that the server may have echoed."""
    what, fix = secrets.clean(finding.what), secrets.clean(finding.fix)
    return dataclasses.replace(finding, what=what, fix=fix)


def _unreachable(error: Exception, names: tuple[str, ...]) -> Finding:
    meaning = classify(error)
    fix = meaning.remedy
    what = f"it cannot be reached: {words_of(error)}"
    if isinstance(error, BusyLoadingError):
        what, fix = f"it is not ready: {words_of(error)}", "wait until it has loaded its data"
    elif isinstance(error, ResponseError):
        what = f"it returned an error: {words_of(error)}"
        fix = fix or "see the server's log, or the settings in `redis_connection`"
    elif isinstance(error, AuthenticationError):
        what = f"authentication failed: {words_of(error)}"
        fix = "check `redis_username` and `redis_password`"
    elif isinstance(error, TLSRefused):
        what = f"it cannot be reached: {error}"
    return Finding(Severity.ERROR, REACHABLE, names, what, fix)


def _with_clashes(reports: Sequence[ServerReport], entries: Sequence[Entry]) -> list[ServerReport]:
    """The reports, with prefix clashes of stores that share a database added to one of them."""
    prefixes = {entry.name: str(entry.options.get("prefix", "")) for entry in entries}
    reported: set[tuple[str, ...]] = set()
    complete: list[ServerReport] = []
    for report in reports:
        sharing = {
            name: prefixes[name]
            for each in reports
            if (each.identity, each.db) == (report.identity, report.db)
            for name in each.stores
        }
        clashes = [found for found in prefix_clashes(sharing) if found.stores not in reported]
        reported.update(found.stores for found in clashes)
        complete.append(dataclasses.replace(report, findings=[*report.findings, *clashes]))
    return complete

"""Validate `RedisSettings`: contradictions and invalid values, each with its option and the fix.

Messages never show a value that may be a password, or a URL, which may contain one.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lo_kvs.redis_connection.hosts import PORT_MAX
from lo_kvs.redis_connection.options import PREFIX
from lo_kvs.redis_connection.url import FIELDS, URL, read_url
from lo_kvs.settings.shown import value_shown

if TYPE_CHECKING:
    from lo_kvs.redis_connection.settings import RedisSettings

#: A store's reader and its two writers keep one connection each, and listing keys uses one.
POOL_SIZE_MIN: Final = 4

#: Options with the address of a single server, instead of Sentinels or nodes of a cluster.
PLACES: Final = ("host", "port", "socket", "url")
TLS_OPTIONS: Final = ("ca", "certificate", "key", "check_hostname")
SENTINEL_OPTIONS: Final = ("sentinel_service", "sentinel_username", "sentinel_password")


def problems(settings: RedisSettings, *, given: AbstractSet[str]) -> list[str]:
    """Every fault of settings whose texts are valid, one line each.

    given  the names of the fields that were set explicitly; defaults are not contradictions
    """
    faults = [*_number_faults(settings), *place_faults(given)]
    url = URL({}, {}) if settings.url is None else read_url(settings.url)
    faults += _twice(url, given)
    faults += _tls_faults(settings, url, given)
    faults += _sentinel_faults(settings, given)
    faults += _cluster_faults(settings, url)
    return faults


def _named(names: Iterable[str]) -> str:
    return ", ".join(PREFIX + name for name in names)


def _number_faults(settings: RedisSettings) -> Iterator[str]:
    for name in ("port", "timeout", "retry_for"):
        if not 0 < getattr(settings, name) < math.inf:
            yield f"redis_{name} must be over 0, got {value_shown(getattr(settings, name))}"
    if settings.pool_size < POOL_SIZE_MIN:
        yield (
            f"redis_pool_size must be {POOL_SIZE_MIN} or more, "
            f"got {value_shown(settings.pool_size)}: a store keeps one to read and two to commit"
        )
    if settings.port > PORT_MAX:
        yield f"redis_port must be up to {PORT_MAX}, got {value_shown(settings.port)}"
    if settings.protocol not in (2, 3):
        yield f"redis_protocol must be 2 or 3, got {value_shown(settings.protocol)}"
    if settings.db < 0:
        yield f"redis_db must be 0 or more, got {value_shown(settings.db)}"


def place_faults(given: AbstractSet[str]) -> Iterator[str]:
    """Options that contradict each other about the server's address."""
    for chosen, others in (
        ("sentinels", (*PLACES, "nodes")),
        ("nodes", PLACES),
        ("url", ("host", "port", "socket")),
        ("socket", ("host", "port")),
    ):
        clashing = [name for name in others if name in given]
        if chosen in given and clashing:
            yield (
                f"redis_{chosen} and {_named(clashing)} both give the server's address: "
                "keep one of the two (in an overlay, set the other one to null)"
            )
            return


def _twice(url: URL, given: AbstractSet[str]) -> Iterator[str]:
    for name in dict.fromkeys(field for field, _ in FIELDS.values()):
        if name in given and name in url.fields:
            yield f"redis_{name} is set, and redis_url contains one too: keep one of the two"


def _tls_faults(settings: RedisSettings, url: URL, given: AbstractSet[str]) -> Iterator[str]:
    tls = settings.tls
    if settings.url is not None:
        in_url = bool(url.fields.get("tls"))
        if "tls" in given and tls != in_url:
            yield (
                f"redis_tls is {str(tls).lower()}, but redis_url says otherwise (rediss:// is "
                "TLS, redis:// and unix:// are not): remove redis_tls"
            )
            return
        tls = in_url
    elif tls and settings.socket is not None:
        yield "redis_tls: a unix socket has no TLS; use redis_host, or remove redis_tls"
        return
    idle = [name for name in TLS_OPTIONS if name in given]
    if not tls:
        if idle:
            yield (
                f"{_named(idle)}: this connection does not use TLS; "
                "set redis_tls: true (in a URL: rediss://), or remove this option"
            )
        return
    plain = settings.without_url()
    ca, certificate, key = plain.ca, plain.certificate, plain.key
    if certificate is not None and key is None:
        yield (
            "redis_certificate needs redis_key, the file with its private key "
            "(the same file if it contains both)"
        )
    if key is not None and certificate is None:
        yield "redis_key needs redis_certificate, the file with its certificate"
    unreadable = [*_file_faults(ca=ca, certificate=certificate, key=key)]
    yield from unreadable
    if not unreadable:
        yield from _content_faults(ca, certificate, key)


def _file_faults(**paths: str | None) -> Iterator[str]:
    for name, path in paths.items():
        if path is None:
            continue
        try:
            with Path(path).open("rb"):
                pass
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = error.strerror if isinstance(error, OSError) else "not a valid path"
            yield f"redis_{name}: {path}: {why}; use a PEM file that this process can read"


def _content_faults(ca: str | None, certificate: str | None, key: str | None) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except ssl.SSLError:
            yield f"redis_ca: {ca} contains no certificate in PEM format"
    if certificate is not None and key is not None:
        try:
            context.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, ValueError):
            yield (
                f"redis_certificate, redis_key: {certificate} and {key} are not PEM files of a "
                "certificate and its key, or the key is encrypted: decrypt it with "
                "`openssl pkey`"
            )


def _sentinel_faults(settings: RedisSettings, given: AbstractSet[str]) -> Iterator[str]:
    if not settings.sentinels:
        idle = [name for name in SENTINEL_OPTIONS if name in given]
        if idle:
            yield (
                f"{_named(idle)}: this connection has no Sentinels; "
                "list them in redis_sentinels, or remove this option"
            )
        return
    if not settings.sentinel_service:
        yield (
            "redis_sentinel_service is missing: the name after `sentinel monitor` in the "
            "configuration of the Sentinels"
        )
    if settings.sentinel_username is not None and settings.sentinel_password is None:
        yield "redis_sentinel_username needs redis_sentinel_password"


def _cluster_faults(settings: RedisSettings, url: URL) -> Iterator[str]:
    if not settings.cluster:
        if settings.nodes:
            yield (
                "redis_nodes are the nodes of a cluster: set redis_cluster: true, or use "
                "redis_host and redis_port"
            )
        return
    if settings.sentinels:
        yield (
            "redis_cluster: a cluster does not use Sentinels; remove redis_sentinels, or "
            "redis_cluster"
        )
    if settings.socket is not None or "socket" in url.fields:
        yield ("redis_cluster: a cluster cannot use a unix socket; use redis_host or redis_nodes")
    db = url.fields.get("db", settings.db)
    if db != 0:
        yield f"redis_db must be 0 on a cluster, got {value_shown(db)}"
    if options := sorted(url.options):
        yield (
            f"redis_url has options that a cluster does not support: {', '.join(options)}; "
            "use the options of redis_connection"
        )

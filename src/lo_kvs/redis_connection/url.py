"""Parse `redis_url` strictly, so that no part of a password is mistaken for another part.

    redis://[[user]:password@]host[:port][/database][?option=value&...]
    rediss://...                                     the same, with TLS
    unix://[[user]:password@]/path[?option=value&...]

redis-py's own parser ignores everything after a `#`, uses localhost if there is no host and
database 0 if the database is not a number, and passes every option to the connection. Messages
here never quote the URL: any part of it may be part of a password.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lo_kvs.redis_connection.hosts import host_fault

FORM: Final = "redis_url must look like redis://host:6379/0, rediss://… or unix:///path"
ESCAPES: Final = "in a password write %23 for `#`, %2F for `/`, %3F for `?`, or use redis_password"
_SCHEME: Final = re.compile(r"(redis|rediss|unix)://", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DATABASE: Final = re.compile(r"/?|/(0|[1-9][0-9]{0,8})/?", re.ASCII)


class BadURL(ValueError):
    """An invalid URL; `faults` has the reasons, without any part of the URL."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class URL(NamedTuple):
    """The content of a URL.

    fields   values of `RedisSettings`, by the names of its fields
    options  further options for redis-py's connections
    """

    fields: Mapping[str, Any]
    options: Mapping[str, Any]


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError("expected seconds, over 0")
    return value


def _database(text: str) -> int:
    found = _DATABASE.fullmatch(f"/{text}")
    if found is None or found[1] is None:
        raise ValueError("expected the number of a database")
    return int(found[1])


def _protocol(text: str) -> int:
    if text not in {"2", "3"}:
        raise ValueError("expected 2 or 3")
    return int(text)


def _flag(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError("expected true or false")
    return words[text.lower()]


def _text(text: str) -> str:
    if not text:
        raise ValueError("expected a non-empty text")
    return text


def _verification(text: str) -> str:
    word = text.lower().removeprefix("cert_")  # other programs use CERT_NONE
    if word not in {"none", "optional", "required"}:
        raise ValueError("expected none, optional or required")
    return word


def _client_name(text: str) -> str:
    if re.fullmatch(r"[!-~]+", text) is None:
        raise ValueError("expected a name without spaces")
    return text


#: Options with a field in `RedisSettings`: the field, and the parser for the text.
FIELDS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "db": ("db", _database),
        "username": ("username", _text),
        "password": ("password", _text),
        "ssl_ca_certs": ("ca", _text),
        "ssl_certfile": ("certificate", _text),
        "ssl_keyfile": ("key", _text),
        "ssl_check_hostname": ("check_hostname", _flag),
        "protocol": ("protocol", _protocol),
    }
)
#: Options for redis-py's connections that do not affect what the stores send and read.
PASSED_ON: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "socket_timeout": _seconds,
        "socket_connect_timeout": _seconds,
        "ssl_cert_reqs": _verification,
        "client_name": _client_name,
    }
)
_BYTES: Final = "the stores read replies as bytes; remove it"
_RETRY: Final = "the stores repeat only what is safe to repeat; use redis_retry_for"
_OUTSIDE: Final = "write it before the `?`"
#: Other options of redis-py, with the reason why they are refused.
REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "decode_responses": _BYTES,
        "encoding": _BYTES,
        "encoding_errors": _BYTES,
        "legacy_responses": _BYTES,
        "retry": _RETRY,
        "retry_on_error": _RETRY,
        "retry_on_timeout": _RETRY,
        "max_connections": "use redis_pool_size",
        "timeout": "use redis_timeout and redis_retry_for",
        "health_check_interval": "the stores notice a broken connection; remove it",
        "single_connection_client": "use redis_pool_size",
        "socket_keepalive": "it is always on; remove it",
        "socket_read_size": "it has no effect on the stores; remove it",
        "ssl": "TLS is rediss:// instead of redis://",
        "host": _OUTSIDE,
        "port": _OUTSIDE,
        "path": _OUTSIDE,
        "ssl_password": "unlock the key with `openssl pkey`",
    }
)


def read_url(url: str) -> URL:
    """Parse the URL. Raises `BadURL` with every fault that can be detected independently."""
    if _SCHEME.match(url) is None or _CONTROL.search(url):
        raise BadURL([FORM])
    if "#" in url:
        raise BadURL([f"redis_url contains a `#`, which ends a URL: {ESCAPES}"])
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # the port is not a number, so it may be part of a password
        parts = None
    if parts is None:
        raise BadURL([f"{FORM}, with a number as its port; {ESCAPES}"])
    faults: list[str] = []
    fields: dict[str, Any] = {}
    if parts.scheme == "unix":
        faults += _read_socket(parts, fields)
    else:
        faults += _read_server(parts, port, fields)
    faults += _read_login(parts, fields)
    if faults:  # an apparent option may be part of a password
        raise BadURL(faults)
    options: dict[str, Any] = {}
    faults += _read_query(parts, fields, options)
    if faults:
        raise BadURL(faults)
    return URL(fields, options)


def _read_server(parts: SplitResult, port: int | None, fields: dict[str, Any]) -> Iterator[str]:
    host = parts.hostname
    if not host:
        yield f"redis_url has no host; write it like redis://localhost:6379/0; {ESCAPES}"
        return
    if "@" in parts.path or "@" in parts.query:
        yield f"redis_url has an `@` after its host: {ESCAPES}"
        return
    try:
        fields["host"] = unquote(host, errors="strict")
    except UnicodeDecodeError:
        fields["host"] = ""
    if (fault := host_fault(fields["host"])) is not None:
        yield f"the host in redis_url {fault}"
    if port == 0:
        yield "the port in redis_url must be 1 to 65535"
    fields["port"] = port or 6379
    fields["tls"] = parts.scheme == "rediss"
    database = _DATABASE.fullmatch(parts.path)
    if database is None:
        yield (
            "redis_url must have nothing or the number of a database after the host, as in "
            f"redis://host:6379/0; {ESCAPES}"
        )
    elif database[1] is not None:
        fields["db"] = int(database[1])


def _read_socket(parts: SplitResult, fields: dict[str, Any]) -> Iterator[str]:
    if parts.hostname or not parts.path.strip("/"):
        yield "redis_url must have the path of the socket after three slashes: unix:///path"
        return
    if "@" in parts.query:
        yield f"redis_url has an `@` after its path: {ESCAPES}"
        return
    try:
        fields["socket"] = unquote(parts.path, errors="strict")
    except UnicodeDecodeError:
        yield "the path in redis_url has a `%` that is not an escape: write %25 for `%`"


def _read_login(parts: SplitResult, fields: dict[str, Any]) -> Iterator[str]:
    for name, text in (("username", parts.username), ("password", parts.password)):
        if not text:
            continue
        try:
            fields[name] = unquote(text, errors="strict")
        except UnicodeDecodeError:
            yield (f"the {name} in redis_url has a `%` that is not an escape: write %25 for `%`")


def _read_query(
    parts: SplitResult, fields: dict[str, Any], options: dict[str, Any]
) -> Iterator[str]:
    if not parts.query:
        return
    pairs: list[tuple[str, str]] | None
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        pairs = None
    if pairs is None:
        yield f"redis_url has no option=value after its `?`: {ESCAPES}"
        return
    seen: set[str] = set()
    for name, text in pairs:
        if name not in FIELDS and name not in PASSED_ON:
            why = REFUSED.get(name)
            if why is not None:
                yield f"redis_url cannot have the option {name}: {why}"
            else:
                yield (
                    "redis_url has an unknown option (not shown, it may be part of a "
                    f"password); known are {', '.join([*FIELDS, *PASSED_ON])}. {ESCAPES}"
                )
        elif name in seen or (name in FIELDS and FIELDS[name][0] in fields):
            yield f"redis_url has {name} twice: keep one of the two"
        elif name.startswith("ssl_") and parts.scheme.lower() != "rediss":
            yield f"redis_url has the option {name} without TLS: TLS is rediss://"
        else:
            seen.add(name)
            yield from _read_option(name, text, fields, options)


def _read_option(
    name: str, text: str, fields: dict[str, Any], options: dict[str, Any]
) -> Iterator[str]:
    field, read = FIELDS.get(name, (None, PASSED_ON.get(name, _text)))
    try:
        value = read(text)
    except ValueError as error:
        why = str(error) if str(error).startswith("expected") else "expected a number"
        yield f"redis_url has an invalid option: {name}: {why}"
        return
    if field is None:
        options[name] = value
    else:
        fields[field] = value

"""Validate hosts and addresses in the settings. Messages never quote the value."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

PORT_MAX: Final = 65_535
_NAME: Final = re.compile(r"[\w.-]+")


def host_fault(host: str) -> str | None:
    """Why the text is not a valid host name or IP address, with the fix; `None` if it is valid."""
    for found, fault in (
        (not host.strip(), "is empty: set it to the server's host name, or remove the option"),
        ("://" in host, "contains a URL: use redis_url for it, or give only the host"),
        ("@" in host, "contains a user or a password: use redis_username and redis_password"),
        ("/" in host, "contains a path: use redis_socket for a unix socket"),
        ("$" in host, "contains a variable, which is not replaced here: write the host"),
        ("[" in host or "]" in host, "contains brackets: write an IPv6 address without them"),
        (host != host.strip(), "has spaces around it: remove them"),
        (host.count(":") == 1, "contains a port: use redis_port for it, and give only the host"),
    ):
        if found:
            return fault
    return None if _is_host(host) else "is not a host name or an IP address"


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    if _NAME.fullmatch(host) is None or host.isdecimal():  # the resolver reads 620 as 0.0.2.108
        return False
    try:
        host.encode("idna")  # as the resolver does: no empty label, none over 63 characters
    except UnicodeError:
        return False
    return True


def address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[::1]:port`. Raises ValueError if it is invalid."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host == f"[{bare}]"
    if not colon or (":" in bare) != bracketed or host_fault(bare) is not None:
        raise ValueError("expected host:port")
    if not port.isascii() or not port.isdecimal() or not 0 < int(port[:6]) <= PORT_MAX:
        raise ValueError(f"expected a port from 1 to {PORT_MAX}")
    return bare, int(port)


def address_text(host: str, port: int) -> str:
    """The inverse of `address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""Hosts and addresses of servers, as settings give them. No fault quotes what was given."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

PORT_MAX: Final = 65_535
_NAME: Final = re.compile(r"[\w.-]+")


def host_fault(host: str) -> str | None:
    """What keeps the text from being a host name or an IP address, with the fix; or `None`."""
    for found, fault in (
        (not host.strip(), "is empty: name the server, or leave the option out"),
        ("://" in host, "holds a URL: give that as redis_url, or the host alone"),
        ("@" in host, "holds a user or a password: use redis_username and redis_password"),
        ("/" in host, "holds a path: give a unix socket as redis_socket"),
        ("$" in host, "holds a variable, and none is replaced here: write the host"),
        ("[" in host or "]" in host, "holds brackets: write an IPv6 address without them"),
        (host != host.strip(), "has spaces around it: take them away"),
        (host.count(":") == 1, "holds a port: put that into redis_port, the host alone here"),
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
    """Host and port of `host:port`, or of `[::1]:port`. Raises ValueError where it is none."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host == f"[{bare}]"
    if not colon or (":" in bare) != bracketed or host_fault(bare) is not None:
        raise ValueError("expected host:port")
    if not port.isascii() or not port.isdecimal() or not 0 < int(port[:6]) <= PORT_MAX:
        raise ValueError(f"expected a port from 1 to {PORT_MAX}")
    return bare, int(port)


def address_text(host: str, port: int) -> str:
    """What `address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

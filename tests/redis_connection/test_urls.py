"""`redis_url`: what it says is what is meant, or it is refused without a character of it."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from lo_kvs.kvs import PersistentRedisKVS
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.redis_connection.url import PASSED_ON, REFUSED
from lo_kvs.testing.servers.server import RedisServer

ESCAPES = "write %23 for `#`, %2F for `/`, %3F for `?`, or use redis_password"


def fault_of(url: str) -> str:
    with pytest.raises(StartupCheck) as from_block:
        RedisSettings.from_mapping({"redis_url": url})
    with pytest.raises(StartupCheck) as by_hand:
        RedisSettings(url=url)
    assert str(from_block.value) == "\n".join(
        f"redis_connection: {line}" for line in str(by_hand.value).splitlines()
    )
    assert by_hand.value.__cause__ is by_hand.value.__context__ is None
    return str(by_hand.value)


UNESCAPED = [
    login + rest
    for login, rest in itertools.product(
        (
            *(":57#Sec1", ":Sec1#57", "Sec1#x", "default:#Sec1", "u:57/Sec1", "u:12/Sec1"),
            *("Sec1/x", ":57?Sec1=x", "u:57?Sec1", ":12?db=5&Sec1=x", ":6379?Sec1", ":[Sec1"),
            "u:Sec1]",
        ),
        ("@db.example:6379/0", "@db.example", "@127.0.0.1:6379/0?db=1"),
    )
]


@pytest.mark.parametrize("rest", UNESCAPED)
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_unescaped_character_in_a_password(scheme: str, rest: str) -> None:
    fault = fault_of(f"{scheme}://{rest}")
    assert ESCAPES in fault
    assert "Sec1" not in fault
    assert "sec1" not in fault
    assert "57" not in fault


REFUSED_URLS = {
    "redis:///3": "has no host",
    "redis://": "has no host",
    "redis://:6379/0": "has no host",
    "redis://:hunter2@/0": "has no host",
    "redis:/host": "must look like",
    "host:6379": "must look like",
    " redis://host": "must look like",
    "redis://ho\tst/0": "must look like",
    "http://host": "must look like",
    "redis://host:port/0": "with a number as its port",
    "redis://host:65536/0": "with a number as its port",
    "redis://host:0/0": "must be 1 to 65535",
    "redis://host/zero": "number of a database",
    "redis://host/db1": "number of a database",
    "redis://host/0/1": "number of a database",
    "redis://host/-1": "number of a database",
    "redis://host/01": "number of a database",
    "redis://host/1.5": "number of a database",
    "redis://host/0#x": "contains a `#`",
    "redis://host/0#": "contains a `#`",
    "redis://a,b:6379/0": "is not a host name",
    "redis://${HOST}/0": "contains a variable",
    "redis://ho st/0": "is not a host name",
    "redis://:a%FFb@host/0": "write %25 for `%`",
    "redis://host/1?db=2": "has db twice",
    "redis://host?db=2&db=2": "has db twice",
    "redis://:a@host?password=b": "has password twice",
    "redis://u@host?username=b": "has username twice",
    "redis://host?socket_timeout=1&socket_timeout=2": "has socket_timeout twice",
    "redis://host?db=one": "invalid option: db: expected the number of a database",
    "redis://host?socket_timeout=nan": "invalid option: socket_timeout: expected seconds",
    "redis://host?socket_timeout=soon": "invalid option: socket_timeout: expected a number",
    "redis://host?password=": "invalid option: password",
    "redis://host?colour": "no option=value",
    "redis://host?db=1&&": "no option=value",
    "redis://host?colour=hunter2": "an unknown option",
    "redis://host?ssl_cert_reqs=none": "without TLS: TLS is rediss://",
    "unix://run/redis.sock": "after three slashes",
    "unix://": "after three slashes",
    "unix://:hunter2@host/run/redis.sock": "after three slashes",
    "unix:///run/redis.sock?ssl_certfile=x": "without TLS",
}


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_ambiguous_or_invalid_url(url: str) -> None:
    fault = fault_of(url)
    assert fault.startswith(("redis_url ", "the host in redis_url", "the p"))
    assert REFUSED_URLS[url] in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize("option", REFUSED)
def test_unsupported_option_of_redis_py(option: str) -> None:
    fault = fault_of(f"rediss://host/0?{option}=1")
    assert fault == f"redis_url cannot have the option {option}: {REFUSED[option]}"


ACCEPTED: dict[str, dict[str, object]] = {
    "redis://host": {"host": "host", "port": 6379, "db": 0},
    "REDIS://host/": {"host": "host", "db": 0},
    "redis://host:7/3": {"host": "host", "port": 7, "db": 3},
    "redis://[::1]:7/3": {"host": "::1", "port": 7, "db": 3},
    "redis://host?db=3": {"db": 3},
    "redis://:p%23%2F%3F%40@host": {"password": "p#/?@", "username": None},
    "redis://u%3A:p:w@host": {"username": "u:", "password": "p:w"},
    "redis://u:p@w@host": {"username": "u", "password": "p@w"},
    "redis://u:p w@host": {"password": "p w"},
    "redis://host?password=p%26": {"password": "p&"},
    "redis://:%C3%A9@host": {"password": "é"},
    "rediss://host?ssl_check_hostname=false": {"tls": True, "check_hostname": False},
    "unix://u:p@/run/redis.sock?db=2": {
        "socket": "/run/redis.sock",
        "username": "u",
        "password": "p",
        "db": 2,
    },
    "unix:///run/redis%20states.sock": {"socket": "/run/redis states.sock"},
}


@pytest.mark.parametrize("url", ACCEPTED)
def test_parts_of_a_url(url: str) -> None:
    where = RedisSettings.from_mapping({"redis_url": url}).without_url()
    assert {name: getattr(where, name) for name in ACCEPTED[url]} == ACCEPTED[url]


def test_options_for_connections_get_there() -> None:
    url = (
        "rediss://host?socket_timeout=7&socket_connect_timeout=8&ssl_cert_reqs=CERT_NONE"
        "&client_name=states"
    )
    kwargs = factory.client(RedisSettings(url=url)).connection_pool.connection_kwargs
    assert {name: kwargs[name] for name in PASSED_ON} == {
        "socket_timeout": 7.0,
        "socket_connect_timeout": 8.0,
        "ssl_cert_reqs": "none",
        "client_name": "states",
    }


def test_ipv6_address_is_shown_in_brackets() -> None:
    assert RedisSettings(url="redis://[::1]:7/3").place == "[::1]:7"
    assert RedisSettings(host="::1", port=7).place == "[::1]:7"


def test_store_with_every_accepted_option() -> None:
    with RedisServer(password="p#/?@:%25") as server:
        url = f"redis://:p%23%2F%3F%40:%2525@127.0.0.1:{server.port}/3"
        url += "?socket_timeout=4&socket_connect_timeout=4&client_name=states"

        async def use() -> None:
            async with PersistentRedisKVS(connection=RedisSettings(url=url)) as store:
                await store.set("key", {"n": 1})
                assert await store.get("key") == {"n": 1}
                assert await store.keys() == ["key"]

        asyncio.run(use())

"""Servers that quote commands: no password appears in any of our errors."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from tests.redis_connection.odd_servers import HELLO, answering
from tests.redis_connection.test_secrets import run_check

from lo_kvs import redis_connection, settings
from lo_kvs.kvs import KVSError, MissingKVSParameters, PersistentRedisKVS
from lo_kvs.kvs.checks.startup import startup_faults
from lo_kvs.kvs.configuration import Entry
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.redis_connection.redaction import Secrets
from lo_kvs.testing.servers.server import RedisServer

#: It changes when it is percent-encoded, and needs quoting in a `repr`.
SECRET = "pl4nted/'s3cret w@rd"
USER = "planted-user"


def quoting(form: str) -> Callable[[Sequence[bytes]], bytes | None]:
    """Answers each command with an error that quotes it, in this form, and all that came before."""
    seen: list[str] = []

    def answer(words: Sequence[bytes]) -> bytes:
        seen.extend(word.decode(errors="replace") for word in words)
        name, *rest = (word.decode(errors="replace") for word in words)
        said = form.format(
            name=name, rest=" ".join(rest), seen=" ".join(seen), quoted=quote(SECRET)
        )
        return said.replace("\n", " ").encode() + b"\r\n"

    return answer


FORMS = [
    "-ERR unknown command '{name}', with args beginning with: {rest}",
    "-ERR unknown command `{name}`, with args beginning with: `{rest}`,",
    "-ERR {name} is not allowed: {seen}",
    "-WRONGPASS invalid username-password pair {seen}",
    "-NOAUTH {seen} {quoted}",
    "-NOPERM user {seen} has no permissions",
    "-LOADING {seen}",
    "-MOVED {seen}",
    "-{seen}",
    "+{seen}",
    "*1\r\n-ERR {seen}",
]


def texts_of(error: BaseException) -> str:
    """All that can be printed or sent elsewhere of an error, its causes and contexts included."""
    texts: list[str] = []
    each: BaseException | None = error
    while each is not None:
        texts += [str(each), repr(each), repr(vars(each)), repr(each.args)]
        with contextlib.suppress(TypeError):  # redis-py's own cannot all be pickled
            texts.append(repr(pickle.dumps(each)))
        texts += traceback.format_exception(each)
        each = each.__cause__ or each.__context__
    return "\n".join(texts)


def assert_clean(text: str) -> None:
    for secret in (SECRET, quote(SECRET), quote(SECRET, safe=""), repr(SECRET)[1:-1], USER):
        assert secret not in text, text[:2_000]


def ways(port: int) -> list[dict[str, Any]]:
    login = {"redis_username": USER, "redis_password": SECRET}
    encoded = quote(SECRET, safe="")
    some = {"redis_retry_for": 0.2, "redis_timeout": 0.2}
    here = {"redis_host": "127.0.0.1", "redis_port": port}
    return [
        {**here, **login, **some},
        {**here, **login, **some, "redis_protocol": 2},
        {"redis_url": f"redis://{USER}:{encoded}@127.0.0.1:{port}/0", **some},
        {"redis_url": f"redis://127.0.0.1:{port}/0?password={encoded}", **some},
        {"redis_cluster": True, "redis_nodes": [f"127.0.0.1:{port}"], **login, **some},
        {
            "redis_sentinels": [f"127.0.0.1:{port}"],
            "redis_sentinel_service": "states",
            "redis_sentinel_username": USER,
            "redis_sentinel_password": SECRET,
            **login,
            **some,
        },
    ]


async def errors_of_a_store(where: RedisSettings) -> list[BaseException]:
    errors: list[BaseException] = []
    async with PersistentRedisKVS(connection=where) as store:
        for use in (
            functools.partial(store.get, "key"),
            functools.partial(store.set, "key", 1),
            store.keys,
        ):
            with pytest.raises(KVSError) as error:
                await use()
            errors.append(error.value)
    return errors


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "settings", {})


@pytest.mark.parametrize("form", FORMS)
def test_server_that_quotes_secrets(form: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for way in range(len(ways(0))):
        with answering(quoting(form)) as port:
            block = ways(port)[way]
            where = RedisSettings.from_mapping(block)
            for error in asyncio.run(errors_of_a_store(where)):
                assert_clean(texts_of(error))
            settings.settings["redis_connection"] = block
            stores = [Entry("states", "redis", {}), Entry("strict", "redis", {"require": True})]
            faults = startup_faults(stores)
            assert faults
            assert_clean(" ".join(faults) + texts_of(MissingKVSParameters(faults)))
    assert_clean(caplog.text)


def test_server_that_quotes_secrets_in_its_info() -> None:
    def answer(words: Sequence[bytes]) -> bytes:
        if words[0].upper() == b"HELLO":
            return HELLO
        if words[0].upper() == b"INFO":
            lines = [f"{name}:{SECRET}" for name in ("redis_version", "master_host", "run_id")]
            text = "\r\n".join(["role:slave", f"maxmemory_policy:{SECRET}", *lines])
            return f"${len(text)}\r\n{text}\r\n".encode()
        return f"*2\r\n+save\r\n+{SECRET}\r\n".encode()

    with answering(answer) as port:
        settings.settings["redis_connection"] = ways(port)[0]
        faults = startup_faults([Entry("strict", "redis", {"require": True})])
    assert any("replica" in fault for fault in faults), faults
    assert_clean(" ".join(faults))


@contextmanager
def unwilling() -> Iterator[int]:
    """A real server that knows neither HELLO nor AUTH, and quotes both."""
    hidden = ("--rename-command", "HELLO", "", "--rename-command", "AUTH", "")
    with RedisServer(*hidden) as server:
        yield server.port


def test_commands_and_check(tmp_path: Path) -> None:
    async def connect() -> None:
        await redis_connection.connect()

    with unwilling() as port:
        block = ways(port)[0]
        settings.settings["redis_connection"] = block
        with pytest.raises(redis.RedisError) as error:
            asyncio.run(connect())
        assert "unknown command 'AUTH'" in str(error.value)
        assert_clean(texts_of(error.value))
        code, output = run_check(
            tmp_path, {"redis_connection": block, "redis_connections": {"other": ways(port)[2]}}
        )
    assert code == 4
    assert "unknown command 'AUTH'" in output
    assert_clean(output)


@pytest.mark.parametrize(
    ("passwords", "users", "text", "clean"),
    [
        (["hunter2"], [], "AUTH hunter2", "AUTH <password>"),
        (["a"], [], "AUTH a, not abba", "AUTH <password>, not abba"),
        (
            ["a b/c"],
            [],
            "//:a%20b%2Fc@ //:a%20b/c@ a+b%2Fc",
            "//:<password>@ //:<password>@ <password>",
        ),
        (["one", "one two"], [], "one two", "<password>"),
        ([None, ""], [None, "default"], "User default has", "User default has"),
        (["x"], ["app"], "User app has no apple", "User <username> has no apple"),
        (
            ["p"],
            [],
            "unknown command 'X', with args beginning with: 'p' 'data'",
            "unknown command 'X'",
        ),
        ([r"\d.*("], [], r"it says \d.*( and 1", "it says <password> and 1"),
    ],
)
def test_clean(passwords: list[str | None], users: list[str | None], text: str, clean: str) -> None:
    secrets = Secrets(passwords, users)
    assert secrets.clean(text) == clean
    assert all(each not in repr(secrets) for each in passwords if each)

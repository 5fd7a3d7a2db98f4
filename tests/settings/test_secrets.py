"""A marked secret, in every place of the settings where one can stand: nothing shows it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import pickle
import secrets
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as runs
from hypothesis import strategies as st
from tests.kvs.redis_places import closed_port

from lo_kvs import settings as loaded_settings
from lo_kvs.cli import app
from lo_kvs.kvs import kvs_startup_check
from lo_kvs.kvs.configuration import OPTIONS
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.settings import load_settings
from lo_kvs.stream_analytics.limits import limits_startup_check

#: It stands in no source, so a traceback's lines have none of it. It begins with a letter.
SECRET = "s" + secrets.token_hex(8) + "Z"
REDIS = {"default": {"type": "redis"}}


class Records(logging.Handler):
    """All that a log could get of the records, from every library."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record) + repr(vars(record)))


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loaded_settings, "settings", {})
    monkeypatch.setattr(loaded_settings, "sources", [])
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    handler = Records()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield handler.texts
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.texts.append(out.getvalue())


def shown(error: BaseException) -> Iterator[str]:
    """All that can be printed or sent of an error, and of those that it came from."""
    seen: list[BaseException | None] = [None]
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one in seen or one is None:
            continue
        seen.append(one)
        yield f"{one} {one!r} {one.args!r} {vars(one)!r} {getattr(one, '__notes__', '')}"
        yield pickle.dumps(one, protocol=0).decode("latin-1")
        waiting += [one.__cause__, one.__context__]
    yield "".join(traceback.format_exception(error))


def assert_hidden(source: Any, overlays: Any = ()) -> None:
    """Load settings and start: whatever comes of it shows no secret."""
    texts: list[str] = []
    with heard() as records:
        for step in (
            lambda: load_settings(source, overlays),
            kvs_startup_check,
            limits_startup_check,
        ):
            try:
                step()
            except StartupCheck as fault:
                texts += shown(fault)
    for text in [*texts, *records]:
        assert SECRET.lower() not in text.lower(), text


URL = f"redis://:{SECRET}@127.0.0.1:{closed_port()}/0"
#: Whatever stands there, it is no name, no path and no host.
SHAPES: tuple[Any, ...] = (
    URL,
    f"u:{SECRET}@127.0.0.1",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    [URL],
    [[URL]],
    {"a": URL},
    {f"a:{SECRET}": None},
    {URL: URL},
)
#: Options where a single word may be shown: it is a name, a host or a path.
WORD_SHOWN = {
    *("host", "socket", "ca", "certificate", "key", "sentinel_service", "sentinels", "nodes"),
    *("type", "path", "connection", "prefix"),
}
CONNECTION = [field.name for field in fields(RedisSettings)]
ENTRY = sorted({option for known in OPTIONS.values() for option in known} | {"type"})


@pytest.mark.parametrize("option", CONNECTION)
def test_option_of_a_connection(option: str) -> None:
    shapes = SHAPES if option in WORD_SHOWN else (SECRET, f"{SECRET} 1", *SHAPES)
    for shape in shapes:
        block = {"redis_port": closed_port(), "redis_retry_for": 1, f"redis_{option}": shape}
        if option in {"url", "socket", "sentinels"}:
            del block["redis_port"]
        if option in {"ca", "certificate", "key"}:
            block["redis_tls"] = True
        assert_hidden({"kvs": REDIS, "redis_connection": block})
        kvs = {"default": {"type": "redis", "connection": "states"}}
        assert_hidden({"kvs": kvs, "redis_connections": {"states": block}})


@pytest.mark.parametrize("option", ENTRY)
def test_option_of_a_store(option: str) -> None:
    shapes = SHAPES if option in WORD_SHOWN else (SECRET, f"{SECRET} 1", *SHAPES)
    for shape in shapes:
        for kind in OPTIONS:
            assert_hidden({"kvs": {"default": {"type": kind, option: shape}}})


BLOCKS: tuple[dict[str, Any], ...] = tuple(
    {"kvs": REDIS, **block}
    for shape in (SECRET, *SHAPES)
    for block in (
        {"kvs": shape},
        {"kvs": [shape]},
        {"kvs": [["default", shape]]},
        {"kvs": {"default": shape}},
        {"kvs": {"default": {"type": "redis", f"prefix:{SECRET}": shape}}},
        {"redis_connection": shape},
        {"redis_connection": {f"redis_password:{SECRET}": shape}},
        {"redis_connection": {f"redis_password={SECRET}": shape}},
        {"redis_connection": {f"redis_password {SECRET}": shape}},
        {"redis_connection": {SECRET: shape}},
        {"redis_connection": {1: shape, None: shape, (URL,): shape}},
        {"redis_connections": shape, "kvs": {"default": {"type": "redis", "connection": "a"}}},
        {
            "redis_connections": {f"a:{SECRET}": shape},
            "kvs": {"default": {"type": "redis", "connection": "a"}},
        },
        {"kvs": {f"default:{URL}": shape}},
        {"reducers": shape},
        {"reducers": {"cache_bytes": shape, f"a:{SECRET}": 1}},
    )
)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int) -> None:
    assert_hidden(BLOCKS[number])
    assert_hidden(BLOCKS[number], {"kvs": {"other": {"type": "stub"}}})


URLS = (
    *(f"redis://u:{a}{SECRET}{b}@127.0.0.1:1/0" for a in ("", *"#/?@:[]%& 5") for b in "#/?@:[]%&"),
    *(f"{scheme}://{SECRET}{c}x@127.0.0.1:1/0" for scheme in ("redis", "unix") for c in "#/?:"),
    *(f"redis://127.0.0.1:1/{rest}" for rest in (SECRET, f"?{SECRET}", f"?{SECRET}=1")),
    *(f"redis://127.0.0.1:1/0{rest}" for rest in (f"?db={SECRET}", f"#{SECRET}", f"/{SECRET}")),
    *(f"rediss://127.0.0.1:1?{n}={SECRET}" for n in ("ssl_cert_reqs", "retry", "socket_timeout")),
    *(f"redis://127.0.0.1:{rest}/0" for rest in (SECRET, f"1{SECRET}", f"1#{SECRET}")),
    f"unix://{SECRET}",
    f"unix://:{SECRET}@/no/socket",
    f"{SECRET}://host",
    f"redis:/:{SECRET}@host",
    f"redis://:\u2100{SECRET}@host",
    f"redis://:{SECRET}@h\u2100st",
)


@pytest.mark.parametrize("url", URLS, ids=range(len(URLS)))
def test_url(url: str) -> None:
    assert_hidden({"kvs": REDIS, "redis_connection": {"redis_url": url, "redis_retry_for": 1}})


YAML = (
    "redis_password: [{0}",
    "redis_password: {{a: {0}",
    'redis_password: "{0}',
    "redis_password: '{0}\nb: 1",
    "redis_password: @{0}",
    "redis_password: `{0}",
    "redis_password: %{0}",
    "redis_password: *{0}",
    "redis_password: !{0} x",
    "redis_password: !!python/object:{0} x",
    "redis_password: &{0}",
    "redis_password: x: {0}",
    "redis_password: |{0}\n",
    'redis_password: "\\q{0}"',
    'redis_password: "\\x{0}"',
    "redis_password: x\n\t{0}: y",
    "%YAML {0}",
    "%TAG {0}",
    "--- {0}\n--- {0}",
    "{0}",
    "- {0}",
    "{{redis_password:{0}, redis_password:{0}}}",
    "{{a b: 1, redis_connection: {{redis_password: a,{0}}}, kvs: {{default: {{type: redis}}}}}}",
    "redis_password: !!int {0}",
    "redis_password: !!timestamp {0}",
    "redis_password: {0}\x00",
    "redis_password: {0}\nredis_password: {0}",
    "? [{0}]\n: {0}",
    "<<: {0}",
    "<<: [{0}]",
)
PMSS = (
    "redis_connection {{ redis_password: {0} }}",
    "redis_connection {{ redis_password: '{0}; }}",
    "redis_connection {{ redis_password: {0}\nredis_host: x; }}",
    "redis_connection {{ redis_password {0}; }}",
    "redis_connection {{ {0}-x: y; }}",
    "redis_connection {{ redis_password: {0}//; }} $",
    'redis_connection {{ redis_password: "\\q{0}"; }}',
    "/* {0}",
    "#{0} {{ a: b; }}",
    '[school="x"] redis_connection {{ redis_password: {0}; }}',
    ".dev {{ redis_password: {0}; }}",
    "redis_password: {0};",
    "redis_connection {{ redis_password: {0}; }} redis_connection redis_password {{ a: b; }}",
)


@pytest.mark.parametrize("text", [*YAML, *PMSS])
def test_text_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / ("site.pmss" if text in PMSS else "site.yaml")
    for value in (SECRET, URL):
        path.write_text(text.format(value))
        assert_hidden(path)
        assert_hidden({"kvs": REDIS}, path)


CHARACTERS = st.text(alphabet="#/?@:[]{}%&=$'\"\\,;|!*<> \n\tx5é", max_size=6)


@runs(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(before=CHARACTERS, after=CHARACTERS)
@example(before="57#", after="")
@example(before="x,", after="")
@example(before="", after="#")
def test_password_with_any_characters(tmp_path: Path, before: str, after: str) -> None:
    password = f"{before}{SECRET}{after}"
    url = f"redis://u:{password}@127.0.0.1:1/0"
    for block in ({"redis_url": url}, {"redis_host": f"u:{password}@h"}, {"redis_url": password}):
        with contextlib.suppress(StartupCheck):
            where = RedisSettings.from_mapping(block)
            assert SECRET not in f"{where} {where!r} {vars(where)} {where.place}"
        assert_fault_hidden(block)
    for name, text in (
        ("creds.yaml", f"redis_connection: {{redis_password: {password}, redis_port: 1}}"),
        ("creds.yaml", f"redis_connection:\n  redis_password: {password}\n  redis_port: 1\n"),
        ("creds.pmss", f"redis_connection {{ redis_password: {password}; redis_port: 1; }}"),
    ):
        path = tmp_path / name
        path.write_text(text)
        try:
            loaded = load_settings(path).get("redis_connection")
        except StartupCheck as fault:
            for shape in shown(fault):
                assert SECRET not in shape
        else:
            assert_fault_hidden(loaded)


def assert_fault_hidden(block: Any) -> None:
    try:
        RedisSettings.from_mapping(block)
    except StartupCheck as fault:
        for text in shown(fault):
            assert SECRET not in text


CHECKED: tuple[Mapping[str, Any], ...] = (
    {"redis_connection": {"redis_host": "127.0.0.1", "redis_port": 1, "redis_password": SECRET}},
    {"redis_connection": {"redis_url": URL}},
    {"redis_connection": {"redis_url": f"redis://:12?{SECRET}=x@127.0.0.1:1/0"}},
    {"redis_connection": {"redis_host": URL}},
    {"redis_connection": {"redis_socket": URL}},
    {"redis_connection": {f"redis_password:{SECRET}": None}},
    {"kvs": {"default": {"type": URL}}},
    {"kvs": {"default": {"type": "redis", "connection": URL}}},
    {"kvs": {f"default:{URL}": None}},
)


@pytest.mark.parametrize("number", range(len(CHECKED)))
@pytest.mark.parametrize("flag", ["--json", None])
def test_check_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int, flag: str | None
) -> None:
    path = tmp_path / "creds.yaml"
    path.write_text(json.dumps({"kvs": REDIS, **CHECKED[number]}))
    arguments = ["check", "--config", str(path), *([flag] if flag else [])]
    with heard() as records:
        code = app(arguments, standalone_mode=False)
    text = "".join([*records, *capfd.readouterr()])
    assert code in {2, 4}
    assert SECRET not in text


def test_settings_are_printed_without_their_secrets() -> None:
    for where in (
        RedisSettings(username=SECRET, password=SECRET, sentinel_username=SECRET),
        RedisSettings(url=URL, sentinel_password=SECRET),
    ):
        texts = [f"{where} {where!r} {vars(where)} {where.without_url()}"]
        texts.append(repr(vars(where.without_url())))
        texts.append(repr(factory.client(where).connection_pool.connection_kwargs))
        assert SECRET not in "".join(texts)
        assert pickle.loads(pickle.dumps(where)) == where

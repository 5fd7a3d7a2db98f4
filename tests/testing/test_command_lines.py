"""No password is on the command line of a process: everybody on the machine can read that."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

import redis

from lo_kvs.testing.servers.sentinel import SentinelSetup
from lo_kvs.testing.servers.server import RedisServer

#: Nobody else's, as the command lines of all processes are looked through.
SECRET = secrets.token_hex(8)
#: A word, and every character that a configuration file could take for something else.
PASSWORDS = (SECRET, f"{SECRET} '\"\\#é\t--save")


def command_lines() -> str:
    """Those of all the processes that we may see."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue  # it has ended
    return "\n".join(lines)


def test_password_of_a_server() -> None:
    for password in PASSWORDS:
        arguments = ("--masterauth", password, "--maxmemory", "50mb")
        with RedisServer(*arguments, password=password) as server:
            seen = command_lines()
            assert str(server.directory) in seen
            assert SECRET not in seen
            with redis.Redis.from_url(server.url) as client:
                assert client.config_get("masterauth") == {"masterauth": password}
                assert client.config_get("maxmemory") == {"maxmemory": "52428800"}
            for path in server.directory.iterdir():
                if SECRET.encode() in path.read_bytes():
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_options_hold_after_a_restart() -> None:
    with RedisServer("--appendonly", "yes", password=SECRET) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"value"
        assert SECRET not in command_lines()


def test_passwords_of_sentinels_and_their_servers() -> None:
    with SentinelSetup(
        replicas=1, sentinels=1, password=f"{SECRET} a", sentinel_password=f"{SECRET} b"
    ) as setup:
        assert SECRET not in command_lines()
        with redis.Redis.from_url(setup.primary().url) as client:
            assert client.ping()
        # A Sentinel writes its file anew as it likes; nobody else gets into the folder.
        assert stat.S_IMODE(setup.sentinels[0].directory.stat().st_mode) == 0o700

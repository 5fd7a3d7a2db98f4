"""A TCP proxy between a client and Redis that injects faults.

    async with FaultProxy(host, port, seed=7, faults={Fault.CUT_AFTER: 0.05}) as proxy:
        client = redis.asyncio.Redis(port=proxy.port)

`Fault` tells what each fault does. A *request* is what one read from the client brought: what one
write of the client sent, unless that was large (asyncio reads up to 256 KiB at once) or followed
another closely. So a pipeline is one request, and each message of a connection's greeting is one
too. The proxy knows no more of the protocol; `only` picks the requests that count.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from lo_kvs.testing.faults.connection import READ_MAX, Connection, Fault, Stream

HOST = "127.0.0.1"

__all__ = ["Fault", "FaultProxy"]


class FaultProxy:
    """Forwards connections on a port of its own to a server, with faults.

    `faults` gives each kind its probability for a request. The n-th request gets the n-th number
    of a generator seeded with `seed`: the same requests in the same order meet the same faults.
    Requests for which `only` is false are forwarded, not counted and never struck
    (`only=lambda request: b"EVALSHA" in request`). `stall_s` is how long STALL holds one. `port` is
    where it listens; default: any that is free.

    `faults_on` may be changed at any time, from any thread, `requests` and `counts` (struck
    requests by kind) may be read so. So may `upstream`, (host, port) of the server: connections
    that are opened from then on lead there, as with an address that moves at a failover.
    One proxy runs once: `async with`, or `run_in_thread`.

    Raises ValueError for probabilities that are none, OSError on start where the port is taken.
    """

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        *,
        seed: int = 0,
        faults: Mapping[Fault, float] | None = None,
        only: Callable[[bytes], bool] | None = None,
        stall_s: float = 0.2,
        port: int = 0,
    ) -> None:
        self._faults = {Fault(kind): share for kind, share in (faults or {}).items()}
        if min(self._faults.values(), default=0.0) < 0 or sum(self._faults.values()) > 1:
            raise ValueError(f"expected probabilities that add up to 1 at most, got {faults!r}")
        self.faults_on = True
        self.requests = 0
        self.connections = 0
        self.counts: Counter[Fault] = Counter()
        self.upstream = (upstream_host, upstream_port)
        self._random = random.Random(seed)
        self._only = only
        self._stall_s = stall_s
        self._injected: dict[int, Fault] = {}
        self._lock = threading.Lock()  # over what `inject` and the proxy's loop both change
        self._listener: asyncio.Server | None = None
        self._wanted_port = port
        self._port = 0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self._port:
            raise RuntimeError("this proxy was used already; create a new one")
        self._listener = await asyncio.start_server(
            self._accept, HOST, self._wanted_port, limit=READ_MAX
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is None:
            return
        self._closing = True
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    @property
    def port(self) -> int:
        """Where clients connect, on 127.0.0.1; 0 before the start."""
        return self._port

    @property
    def url(self) -> str:
        """The server's first database, by way of the proxy."""
        return f"redis://{HOST}:{self._port}/0"

    def inject(self, fault: Fault, at: int = 1) -> None:
        """Strike the `at`-th request from now (1: the next), also while `faults_on` is false."""
        if at < 1:
            raise ValueError(f"expected the number of a request to come, 1 or more, got {at}")
        with self._lock:
            self._injected[self.requests + at] = Fault(fault)

    @contextmanager
    def run_in_thread(self) -> Iterator[Self]:
        """Run the proxy in a thread with an event loop of its own, for clients in other processes.

        Raises what the start raised.
        """
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            end = asyncio.Event()
            async with self:
                started.set_result((asyncio.get_running_loop(), end))
                await end.wait()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)

        # A daemon: a test that hangs must not keep the interpreter from ending.
        thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
        thread.start()
        loop, end = started.result()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:  # the kernel had accepted it before the end
            writer.transport.abort()
            return

        def forget(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            writer.close()  # a task that is cancelled before its first step closes nothing itself

        # A task of ours, not asyncio's: on 3.11 it reports a cancelled one as a failure.
        task = asyncio.create_task(self._serve(Stream(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(forget)

    async def _serve(self, client: Stream) -> None:
        self.connections += 1
        try:
            server = Stream(*await asyncio.open_connection(*self.upstream, limit=READ_MAX))
        except OSError:
            client.reset()  # the nearest that there is to "connection refused"
            return
        await Connection(client, server, self._choose, self._stall_s).run()

    def _choose(self, request: bytes) -> Fault | None:
        if self._only is not None and not self._only(request):
            return None
        with self._lock:
            self.requests += 1
            drawn = self._random.random()  # also where it is not used: the n-th to the n-th
            fault = self._injected.pop(self.requests, None)
            if fault is None and self.faults_on:
                fault = self._fault_at(drawn)
            if fault is not None:
                self.counts[fault] += 1
            return fault

    def _fault_at(self, drawn: float) -> Fault | None:
        for fault, share in self._faults.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

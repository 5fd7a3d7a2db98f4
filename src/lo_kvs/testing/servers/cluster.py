"""A real Redis cluster for tests: primaries on ports of their own, with slots that can be moved.

with ClusterServers() as cluster:
    where = RedisSettings(cluster=True, nodes=cluster.nodes)
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

import hiredis

from lo_kvs.testing.servers.server import HOST, NoRedisServer, RedisServer, find_program

SLOTS: Final = 16_384
READY_S: Final = 60.0
_POLL_S: Final = 0.005
_ANSWER_S: Final = 30.0
#: A failed node is known as such after so long, and after some more on a busy machine.
_NODE_TIMEOUT_MS: Final = 3_000
_KEYS_AT_ONCE: Final = 100


class ClusterServers:
    """Primaries that share the slots of a cluster; no replicas. Nodes are counted from 0.

    `arguments` go to each server. A node that is down leaves the other slots served. Raises
    NoRedisServer where the nodes do not agree on the slots in time.
    """

    def __init__(
        self, *arguments: str, size: int = 3, program: str | os.PathLike[str] | None = None
    ) -> None:
        options = {
            "--cluster-enabled": "yes",
            "--cluster-node-timeout": str(_NODE_TIMEOUT_MS),
            "--cluster-require-full-coverage": "no",
        }
        self._program = program
        words = [word for option in options.items() for word in option]
        self.servers = [RedisServer(*words, *arguments, program=program) for _ in range(size)]
        self._owners = [slot * size // SLOTS for slot in range(SLOTS)]
        self._ids: list[bytes] = []
        self._talks: dict[int, _Talk] = {}

    def __enter__(self) -> Self:
        if self._program is None and find_program() is None:
            raise NoRedisServer("a cluster needs a server program on this machine: see RedisServer")
        with contextlib.ExitStack() as started:
            for server in self.servers:
                started.enter_context(server)
            started.callback(self._hang_up)
            self._join()
            self._leave = started.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave.close()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes as `host:port`, for the settings."""
        return tuple(f"{HOST}:{server.port}" for server in self.servers)

    def ask(self, node: int, *words: bytes | str | int) -> Any:
        """What a node answers to a command. Raises hiredis.ReplyError for an error."""
        talk = self._talks.get(node)
        if talk is None:
            talk = self._talks[node] = _Talk(self.servers[node].port)
        try:
            return talk.ask(words)
        except OSError:
            self._talks.pop(node).close()
            raise

    def node_of(self, slot: int) -> int:
        """The node that serves `slot`."""
        return self._owners[slot]

    def slot_of(self, name: bytes) -> int:
        """The slot of a name in Redis, by this module's own reckoning."""
        _, brace, rest = name.partition(b"{")
        tag, closed, _ = rest.partition(b"}")
        return crc_hqx(tag if brace and closed and tag else name, 0) % SLOTS

    def on(self, name: bytes, command: str, *words: bytes | str | int) -> Any:
        """What the node of `name` answers to `command name words…`."""
        return self.ask(self.node_of(self.slot_of(name)), command, name, *words)

    def flush(self) -> None:
        """Remove every key."""
        for node in range(len(self.servers)):
            self.ask(node, "FLUSHALL")

    def kill(self, node: int) -> None:
        """End a node at once (SIGKILL)."""
        self._forget(node)
        self.servers[node].kill()

    def restart(self, node: int) -> None:
        """Start a node that was killed: the same port, the same slots, what it had kept."""
        self._forget(node)
        self.servers[node].restart()
        self._wait_until_ready()

    # -- moving slots --------------------------------------------------------------------

    def move_slot(
        self, slot: int, to: int, *, while_moved: Callable[[], object] = lambda: None
    ) -> int:
        """Move a slot with its keys, one by one; returns how many keys.

        `while_moved` is called when all keys are there and the slot is not yet: commands for
        them are answered with ASK then.
        """
        self.begin_move(slot, to)
        moved = 0
        while names := self.names_in(slot):
            moved += len(names)
            self.move_names(slot, to, names)
        try:
            while_moved()
        finally:  # a slot that is left half way refuses some commits of whoever comes next
            self.end_move(slot, to)
        return moved

    def names_in(self, slot: int) -> list[bytes]:
        """Some of the names that the slot's own node still has."""
        found: list[bytes] = self.ask(
            self.node_of(slot), "CLUSTER", "GETKEYSINSLOT", slot, _KEYS_AT_ONCE
        )
        return found

    def begin_move(self, slot: int, to: int) -> None:
        """From now on, what the slot's node lacks is asked for at the node `to`."""
        node = self.node_of(slot)
        self.ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[node])
        self.ask(node, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[to])

    def move_names(self, slot: int, to: int, names: Sequence[bytes]) -> None:
        """Move these names, one after another."""
        port = self.servers[to].port
        for name in names:
            # A move that was cut off leaves a name on both nodes, the old one is the true one.
            words = ("MIGRATE", HOST, port, name, 0, 30_000, "REPLACE")
            while True:
                try:
                    self.ask(self.node_of(slot), *words)
                    break
                except hiredis.ReplyError as error:
                    if not str(error).startswith("IOERR"):
                        raise

    def end_move(self, slot: int, to: int) -> None:
        """Give the slot to the node `to`, and announce that to every node."""
        node = self.node_of(slot)
        others = [each for each in range(len(self.servers)) if each not in (node, to)]
        while True:
            # The new node first: else both would send clients to the other one. The old one
            # must have no key left, and may have been given one meanwhile.
            self.ask(to, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])
            try:
                self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])
                break
            except hiredis.ReplyError:
                self.move_names(slot, to, self.names_in(slot))
        for other in others:
            with contextlib.suppress(OSError):  # it is down
                self.ask(other, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])
        self._owners[slot] = to
        # Moved again before all nodes know of it, two of them would claim it for the other, and
        # its keys would be removed.
        self._wait_for(self._agree)

    # -- the cluster itself --------------------------------------------------------------

    def _join(self) -> None:
        self._ids = [self.ask(node, "CLUSTER", "MYID") for node in range(len(self.servers))]
        for node in range(len(self.servers)):
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", node + 1)
            own = [slot for slot in range(SLOTS) if self._owners[slot] == node]
            self.ask(node, "CLUSTER", "ADDSLOTS", *own)  # ADDSLOTSRANGE came with Redis 7
        for server in self.servers[1:]:
            self.ask(0, "CLUSTER", "MEET", HOST, server.port)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self._wait_for(lambda: all(self._is_ready(node) for node in self._running()))
        self._wait_for(self._agree)

    def _wait_for(self, so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not so():
            if time.monotonic() > deadline:
                said = [self.ask(node, "CLUSTER", "NODES") for node in self._running()]
                raise NoRedisServer(f"the nodes of the cluster do not agree: {said}")
            time.sleep(_POLL_S)

    def _agree(self) -> bool:
        """Whether every node knows of each node what that knows of itself: epoch and slots."""
        views = {self._ids[node]: self._view(node) for node in self._running()}
        return all(view[node] == views[node][node] for view in views.values() for node in views)

    def _view(self, node: int) -> dict[bytes, tuple[bytes, list[bytes]]]:
        lines = [line.split() for line in self.ask(node, "CLUSTER", "NODES").splitlines()]
        return {
            words[0]: (words[6], [word for word in words[8:] if not word.startswith(b"[")])
            for words in lines
        }

    def _is_ready(self, node: int) -> bool:
        info = self.ask(node, "CLUSTER", "INFO")
        if b"cluster_state:ok" not in info:
            return False
        slots = self.ask(node, "CLUSTER", "SLOTS")
        served = {entry[2][1] for entry in slots}
        return (
            served == {self.servers[each].port for each in set(self._owners)}
            and sum(entry[1] - entry[0] + 1 for entry in slots) == SLOTS
        )

    def _running(self) -> Iterator[int]:
        for node, server in enumerate(self.servers):
            with contextlib.suppress(NoRedisServer):
                if server.pid:
                    yield node

    def _forget(self, node: int) -> None:
        talk = self._talks.pop(node, None)
        if talk is not None:
            talk.close()

    def _hang_up(self) -> None:
        for node in list(self._talks):
            self._forget(node)


class _Talk:
    """A connection that sends a command and waits for its reply."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=_ANSWER_S)
        self._reader = hiredis.Reader()

    def ask(self, words: Sequence[bytes | str | int]) -> Any:
        packed: Any = tuple(words)
        self._socket.sendall(hiredis.pack_command(packed))
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the node closed the connection")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        self._socket.close()

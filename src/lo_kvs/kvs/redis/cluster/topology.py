"""The map of a cluster, kept up to date by asking any node that answers."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from typing import Any, Final

from hiredis import pack_command

from lo_kvs.kvs.redis.cluster.slots import Address, SlotTable
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.server_errors import Verdict
from lo_kvs.kvs.redis.server.connection import Connection
from lo_kvs.kvs.tasks import start
from lo_kvs.redis_connection import RedisConnection, RedisSettings

logger = logging.getLogger(__name__)

#: The map is not asked for more often than this: what moves meanwhile is told by MOVED.
REFRESH_EVERY_S: Final = 0.25
#: When a node has not answered for so long, the next one is asked as well.
NEXT_NODE_S: Final = 0.2


class Topology(SlotTable):
    """The slots of a cluster, and the nodes that can be asked for them.

    refreshed  called when the map was asked for, with or without success
    cancelled  called before that with the error, where somebody cancelled the task that asked
    """

    def __init__(
        self,
        settings: RedisSettings,
        refreshed: Callable[[], object],
        cancelled: Callable[[BaseException], object],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._refreshed = refreshed
        self._cancelled = cancelled
        self.failure: Exception | None = None  # why the latest attempt to have it failed
        self._refreshed_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    @property
    def refused(self) -> bool:
        """Whether a node said no to the latest attempt, for a reason that waiting will not mend."""
        return self.failure is not None and _says_no(self.failure)

    def refresh_soon(self) -> None:
        """Ask for the whole map, in a task; `refreshed()` is called then, with or without it."""
        if self._task is None:
            self._task = start(self._refresh_in_task(), self._cancelled, self._ended)

    async def refresh(self) -> None:
        """Ask for the whole map now, any node that answers.

        Where none answers it raises what befell one of them, and rather a definite no.
        """
        nodes = list(dict.fromkeys([*self.primaries, *self._settings.seed_nodes()]))
        random.shuffle(nodes)
        asked: dict[asyncio.Task[object], Address] = {}
        failure: Exception | None = None
        try:
            while nodes or asked:
                if nodes:
                    node = nodes.pop()
                    asked[asyncio.create_task(self._slots_from(node))] = node
                done, _ = await asyncio.wait(
                    asked,
                    timeout=NEXT_NODE_S if nodes else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    node = asked.pop(task)
                    try:
                        self.load(task.result(), asked=node)
                    except asyncio.CancelledError:  # that task, not this one
                        failure = failure or ConnectionError("asking a node was cancelled")
                    except Exception as error:  # noqa: BLE001 - another node may know
                        if failure is None or _says_no(error):
                            failure = error
                    else:
                        return
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise failure or ConnectionError("the cluster has no node to ask")

    async def aclose(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _refresh_in_task(self) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._refreshed_at + REFRESH_EVERY_S - clock())
        self._refreshed_at = clock()
        try:
            await self.refresh()
            self.failure = None
        except Exception as error:  # noqa: BLE001 - those that wait for the map get it
            logger.info("the map of the cluster cannot be had: %r", error)
            self.failure = error

    def _ended(self) -> None:
        self._task = None
        self._refreshed()

    async def _slots_from(self, address: Address) -> object:
        # A connection of its own: those of the lanes are busy, or are what is broken.
        connection = RedisConnection(self._settings.at(*address))
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await _Question(connection).slots()
        finally:
            await connection.aclose()


def _says_no(error: Exception) -> bool:
    return (
        isinstance(error, server_errors.FAULTS)
        and server_errors.classify(error).verdict is Verdict.REFUSED
    )


class _Question(Connection):
    async def slots(self) -> object:
        try:
            connection = await self._connected()
            words: Any = ("CLUSTER", "SLOTS")  # hiredis's stub takes tuples of one item only
            await connection.send_packed_command([pack_command(words)], check_health=False)
            return await connection.read_response()
        finally:
            await self._drop()  # at once: what is cancelled while it waits to close stays open
            await self.aclose()

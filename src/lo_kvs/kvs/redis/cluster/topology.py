"""Topology: the slot table of a cluster, refreshed from any node that answers."""

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

#: The minimum time between two refreshes; in between, MOVED replies update single slots.
REFRESH_EVERY_S: Final = 0.25
#: If a node has not answered after this time, the next one is asked as well.
NEXT_NODE_S: Final = 0.2


class Topology(SlotTable):
    """The slots of a cluster, and how to refresh them.

    refreshed  called after each refresh, successful or not
    cancelled  called before that with the error, if the refreshing task was cancelled
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
        self.failure: Exception | None = None  # the error of the latest refresh
        self._refreshed_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    @property
    def refused(self) -> bool:
        """Whether a node refused the latest refresh, so that a retry cannot help."""
        return self.failure is not None and _is_refusal(self.failure)

    def refresh_soon(self) -> None:
        """Refresh all slots in a task; then `refreshed()` is called."""
        if self._task is None:
            self._task = start(self._refresh_in_task(), self._cancelled, self._ended)

    async def refresh(self) -> None:
        """Refresh all slots now, from any node that answers.

        If none answers, raises the error of one of them, preferably a refusal.
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
                        failure = failure or ConnectionError("the request to a node was cancelled")
                    except Exception as error:  # noqa: BLE001 - another node may know
                        if failure is None or _is_refusal(error):
                            failure = error
                    else:
                        return
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise failure or ConnectionError("the cluster has no node to ask")

    async def aclose(self) -> None:
        """Stop refreshing."""
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
        except Exception as error:  # noqa: BLE001 - waiting requests get it
            logger.info("cannot load the topology of the cluster: %r", error)
            self.failure = error

    def _ended(self) -> None:
        self._task = None
        self._refreshed()

    async def _slots_from(self, address: Address) -> object:
        # A separate connection: those of the pipelines are busy or broken.
        connection = RedisConnection(self._settings.at(*address))
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await _Question(connection).slots()
        finally:
            await connection.aclose()


def _is_refusal(error: Exception) -> bool:
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
            await self._drop()  # at once: a close that is cancelled leaves the connection open
            await self.aclose()

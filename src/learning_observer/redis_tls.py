"""A TLS connection that leaves no socket behind when its event loop ends."""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import SSLConnection


class TLSConnection(SSLConnection):
    """Ends with its `disconnect`, whatever the other side does.

    The orderly end of TLS waits for the peer's word, half a minute where none comes. A loop that
    ends meanwhile would leave the socket open.
    """

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        writer = self._writer
        try:
            await super().disconnect(*args, **kwargs)
        finally:
            if writer is not None:
                writer.transport.abort()

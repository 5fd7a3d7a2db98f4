"""What a script's command meets is told as if it had been sent alone, on Redis 6.2 as well."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from learning_observer.kvs.scripts import Script
from learning_observer.redis_connection import RedisSettings

#: How Redis 6.2.14 words it; 7.0 has the code in front.
OLD_WORDS = "ERR Error running script (call to f_f087fd57): @user_script:117: @user_script: 117: -"
CASES: list[tuple[str, type[ResponseError], str]] = [
    ("READONLY You can't write against a read only replica.", ReadOnlyError, "You can't"),
    ("NOREPLICAS Not enough good replicas to write.", ResponseError, "NOREPLICAS Not"),
    ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError, "command not"),
]


@pytest.mark.parametrize(("words", "kind", "begins"), CASES)
@pytest.mark.parametrize("before", ["", OLD_WORDS], ids=["redis 7", "redis 6.2"])
def test_error_within_a_script(
    redis_url: str, before: str, words: str, kind: type[ResponseError], begins: str
) -> None:
    text = f'return redis.error_reply("{before}{words}")'.encode()
    script = Script("refuse", text, hashlib.sha1(text, usedforsecurity=False).hexdigest())

    async def run() -> ResponseError:
        client = RedisSettings(url=redis_url).client()
        connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            for _ in range(2):  # with its text first, then by its digest
                with pytest.raises(ResponseError) as raised:
                    await script.run(connection, [])
        finally:
            await connection.disconnect()
        return raised.value

    error = asyncio.run(run())
    assert type(error) is kind
    assert str(error).startswith(begins)


def test_errors_of_the_script_itself_stay_as_they_are(redis_url: str) -> None:
    text = b'return redis.error_reply("LOKVS_STALE call 1 comes after call 2")'
    script = Script("stale", text, hashlib.sha1(text, usedforsecurity=False).hexdigest())

    async def run() -> None:
        client = RedisSettings(url=redis_url).client()
        connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            with pytest.raises(ResponseError, match=r"^LOKVS_STALE call 1"):
                await script.run(connection, [])
        finally:
            await connection.disconnect()

    asyncio.run(run())

"""What a caller does about the errors of a store."""

import asyncio

from lo_kvs.kvs import (
    KVSError,
    NotJSON,
    OutcomeUnknown,
    PersistentRedisKVS,
    Unavailable,
)
from lo_kvs.redis_connection import RedisSettings


async def save(store, key, value):
    try:
        await store.set(key, value)
    except NotJSON as error:
        return f"a defect of ours, at {error.path}"
    except Unavailable:
        return "not written: keep it, and try again later"
    except OutcomeUnknown:
        return "written or not: a set may be sent again, an event may not"
    except KVSError as error:
        return f"not written, and waiting will not help: {error}"
    return "written"


async def main():
    nowhere = RedisSettings(port=1, retry_for=0.2)
    async with PersistentRedisKVS(connection=nowhere) as store:
        print(await save(store, "key", {1, 2}))
        print(await save(store, "key", 1))
        print(await save(store, "__lokvs:key", 1))


asyncio.run(main())

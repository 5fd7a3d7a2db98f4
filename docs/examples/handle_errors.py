"""How a caller handles the errors of a store."""

import asyncio

import lo_kvs


async def save(store, key, value):
    try:
        await store.set(key, value)
    except lo_kvs.NotJSON as error:
        return f"a bug in the caller: the value at {error.path} is not JSON"
    except lo_kvs.Unavailable:
        return "not written: keep the value and try again later"
    except lo_kvs.OutcomeUnknown:
        return "written or not: a set can be sent again, an event cannot"
    except lo_kvs.KVSError as error:
        return f"not written, and trying again does not help: {error}"
    return "written"


async def main():
    no_server = lo_kvs.RedisSettings(port=1, retry_for=0.2)
    async with lo_kvs.PersistentRedisKVS(connection=no_server) as store:
        print(await save(store, "key", {1, 2}))
        print(await save(store, "key", 1))
        print(await save(store, "__lokvs:key", 1))


asyncio.run(main())

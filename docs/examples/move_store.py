"""Move one configured store into another through a dump file."""

import asyncio

import lo_kvs


async def main():
    old = {"type": "filesystem", "path": "old"}
    lo_kvs.configure({"kvs": {"default": {"type": "stub"}, "old": old}})
    async with lo_kvs.KVS:
        await lo_kvs.KVS.old().set("Internal,m.f,STUDENT:s1", {"count": 3})
        await lo_kvs.KVS.old().dump("states.json")

        store = lo_kvs.KVS()
        print(await store.load("states.json"), await store["Internal,m.f,STUDENT:s1"])


asyncio.run(main())

"""The operations of a store."""

import asyncio
import tempfile
from pathlib import Path

import lo_kvs


async def main():
    async with lo_kvs.InMemoryKVS() as store:
        await store.set("notes/essay", {"words": 12})
        print(await store["notes/essay"], await store["notes/plan"])

        # Atomic: concurrent updates are never lost. The function may run more than once.
        print(await store.update("visits", lambda count: (count or 0) + 1))

        await store.multiset({"notes/plan": None, "notes/poem": [1, 2]})
        print(await store.multiget(["notes/poem", "notes/diary"], default="nothing"))
        print(await store.exists("notes/plan"), await store.get("notes/plan", "absent"))

        print(sorted(await store.keys("notes/")))
        async for key in store.scan("visits"):
            print(key)

        print(await store.remove("notes/plan"), await store.remove("notes/plan"))

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "dump.json"
            await store.dump(file)
            await store.clear()
            print(await store.load(file), await store["notes/essay"])


asyncio.run(main())

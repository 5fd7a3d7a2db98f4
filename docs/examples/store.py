"""What a store does."""

import asyncio
import tempfile
from pathlib import Path

from learning_observer.kvs import InMemoryKVS


async def main():
    async with InMemoryKVS() as store:
        await store.set("notes/ann", {"words": 12})
        print(await store["notes/ann"], await store["notes/bob"])

        # Atomic: of two writers at once, none is lost. The function may run more than once.
        print(await store.update("visits", lambda count: (count or 0) + 1))

        await store.multiset({"notes/bob": None, "notes/eve": [1, 2]})
        print(await store.multiget(["notes/eve", "notes/zoe"], default="nothing"))
        print(await store.exists("notes/bob"), await store.get("notes/bob", "absent"))

        print(sorted(await store.keys("notes/")))
        async for key in store.scan("visits"):
            print(key)

        print(await store.remove("notes/bob"), await store.remove("notes/bob"))

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "dump.json"
            await store.dump(file)
            await store.clear()
            print(await store.load(file), await store["notes/ann"])


asyncio.run(main())

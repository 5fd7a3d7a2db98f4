"""Values that a store keeps as they are, converts as `json.dumps` does, or refuses."""

import asyncio
from datetime import date

import lo_kvs

KEPT = [None, [1, -0.0, "é"], 2**70, {"": {"a": []}}]
CONVERTED = [(1, (2,)), {2: "a", None: "b"}, {1.5: True, False: 0}]
REFUSED = [
    {"students": [{}, {"score": float("nan")}]},
    {1: "a", "1": "b"},
    {(1, 2): "a"},
    {1, 2},
    b"bytes",
    date(2026, 9, 7),
]


async def main():
    async with lo_kvs.InMemoryKVS() as store:
        for value in KEPT:
            await store.set("key", value)
            assert repr(await store["key"]) == repr(value)
        for value in CONVERTED:
            await store.set("key", value)
            print(value, "->", await store["key"])
        for value in REFUSED:
            try:
                await store.set("key", value)
            except lo_kvs.NotJSON as error:
                print(error)


asyncio.run(main())

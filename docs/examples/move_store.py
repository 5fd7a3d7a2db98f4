"""From one configured store into another, through a file."""

import asyncio

from lo_kvs.kvs import KVS
from lo_kvs.prestartup import startup_checks_and_init
from lo_kvs.settings import load_settings


async def main():
    old = {"type": "filesystem", "path": "old"}
    load_settings({"kvs": {"default": {"type": "stub"}, "old": old}})
    startup_checks_and_init()
    async with KVS:
        await KVS.old().set("Internal,m.f,STUDENT:s1", {"count": 3})
        await KVS.old().dump("states.json")
        print(await KVS().load("states.json"), await KVS()["Internal,m.f,STUDENT:s1"])


asyncio.run(main())

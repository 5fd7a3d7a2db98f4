"""A reducer, a store, an event, and the state that comes of them."""

import asyncio

from lo_kvs.kvs import KVS
from lo_kvs.prestartup import startup_checks_and_init
from lo_kvs.settings import load_settings
from lo_kvs.stream_analytics.helpers import student_event_reducer


@student_event_reducer(null_state={"count": 0})
async def event_count(event, state):
    state["count"] += 1
    return state, state  # Internal for the next event, External for dashboards


async def main():
    load_settings({"kvs": {"default": {"type": "filesystem", "path": ".lo_kvs"}}})
    startup_checks_and_init()
    async with KVS:
        process = await event_count({"auth": {"safe_user_id": "s1"}})
        print(await process({"client": {"event": "keystroke"}}))


asyncio.run(main())

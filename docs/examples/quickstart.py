"""A reducer that counts the events of each student, and keeps the count in files."""

import asyncio

import lo_kvs


@lo_kvs.student_event_reducer(null_state={"count": 0})
async def event_count(event, state):
    state["count"] += 1
    return state, state  # Internal, for the next event; External, for dashboards


async def main():
    lo_kvs.configure({"kvs": {"default": {"type": "filesystem", "path": ".lo_kvs"}}})
    async with lo_kvs.KVS:  # closes the stores at the end
        process = await event_count({"auth": {"safe_user_id": "s1"}})
        print(await process({"client": {"event": "keystroke"}}))


asyncio.run(main())

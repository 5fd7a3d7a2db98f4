"""A reducer, its states for a dashboard, and a store, in a minute."""

import asyncio

import lo_kvs


@lo_kvs.student_event_reducer(null_state={"words": 0})
async def words(event, state):
    state["words"] += len(event["client"]["text"].split())
    return state, {"words": state["words"]}  # Internal, External


async def main():
    lo_kvs.configure({"kvs": {"default": {"type": "stub"}}})
    async with lo_kvs.KVS:
        process = await words({"auth": {"safe_user_id": "s1"}})
        print(await process({"client": {"event": "typed", "text": "to be or not to be"}}))

        students = [{lo_kvs.KeyField.STUDENT: "s1"}, {lo_kvs.KeyField.STUDENT: "s2"}]
        for row in await lo_kvs.states(words, students, default={"words": 0}):
            print(row.fields, row.present)

        store = lo_kvs.KVS()
        await store.set("essay", {"title": "Hamlet"})
        print(await store["essay"], await store.get("plan", "absent"))
        print(await store.update("visits", lambda visits: (visits or 0) + 1))
        print(sorted(await store.keys("e")), await store.remove("essay"))
        try:
            await store.set("essay", {"marks": {1, 2}})
        except lo_kvs.NotJSON as error:
            print(error.path)


asyncio.run(main())

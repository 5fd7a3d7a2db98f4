"""Test a reducer: by itself, as a server calls it, and by looking at the store."""

import asyncio

import word_count

import lo_kvs
from lo_kvs.reducers import fold


def insert(text):
    commands = [{"ty": "is", "s": text, "ibi": 1}]
    return {"client": {"event": "google_docs_save", "bundles": [{"commands": commands}]}}


async def main():
    events = [insert("Once upon a"), {"client": {"event": "mouse"}}, insert(" time")]

    # By itself, without keys and without a store.
    internal, external = await fold(word_count.words_typed, events, dict(word_count.NOTHING))
    assert internal == {"inserts": 2, "words": 4}
    assert external == {"words": 4}

    # As a server calls it, on a store in memory. Other stores behave the same.
    lo_kvs.configure({"kvs": {"default": {"type": "stub"}}})
    async with lo_kvs.KVS:
        process = await word_count.words_typed({"auth": {"safe_user_id": "s1"}})
        shown = [await process(event, {"doc_id": "essay"}) for event in events]
        assert shown == [{"words": 3}, False, {"words": 4}]

        # The states in the store.
        store = lo_kvs.KVS()
        for key in sorted(await store.keys()):
            print(key, await store[key])


asyncio.run(main())

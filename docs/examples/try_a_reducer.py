"""Three ways to try a reducer out, the quickest first."""

import asyncio

import word_count

from lo_kvs.kvs import KVS
from lo_kvs.prestartup import startup_checks_and_init
from lo_kvs.reducers import fold
from lo_kvs.settings import load_settings


def insert(text):
    commands = [{"ty": "is", "s": text, "ibi": 1}]
    return {"client": {"event": "google_docs_save", "bundles": [{"commands": commands}]}}


async def main():
    events = [insert("Once upon a"), {"client": {"event": "mouse"}}, insert(" time")]

    # Without keys and without a store.
    internal, external = await fold(word_count.words_typed, events, dict(word_count.NOTHING))
    assert internal == {"inserts": 2, "words": 4}
    assert external == {"words": 4}

    # As a server calls it, on a stub. Other stores behave alike.
    load_settings({"kvs": {"default": {"type": "stub"}}})
    startup_checks_and_init()
    async with KVS:
        process = await word_count.words_typed({"auth": {"safe_user_id": "s1"}})
        shown = [await process(event, {"doc_id": "essay"}) for event in events]
        assert shown == [{"words": 3}, False, {"words": 4}]

        # What lies in the store.
        for key in sorted(await KVS().keys()):
            print(key, await KVS()[key])


asyncio.run(main())

"""Run events through the reducers of a module, then query the states for a dashboard."""

import asyncio

import word_count

import lo_kvs
from lo_kvs.simulate import simulate

STUDENT, DOC = lo_kvs.KeyField.STUDENT, lo_kvs.EventField("doc_id")


async def main():
    pipeline = lo_kvs.Pipeline.of_module(word_count)
    first, *rest = simulate(students=2, events=200, seed=7)
    async with lo_kvs.InMemoryKVS() as store:
        await pipeline.process(first, store=store)  # one event: for servers
        errors = await pipeline.process_batch(rest, store=store)  # many: for logs and queues
        print("failed:", [error for error in errors if error is not None])

        rows = await lo_kvs.states(
            word_count.words_typed,
            [
                {STUDENT: "sim-student-000", DOC: "sim-doc-000-0"},
                {STUDENT: "nobody", DOC: "sim-doc-000-0"},
            ],
            select={"typed": "words", "pages": "text.pages"},
            default=word_count.NOTHING,
            store=store,
        )
        for row in rows:
            print(row.values[STUDENT], row.present, row.fields["typed"] > 0)
        print(rows[0].fields["pages"])


asyncio.run(main())

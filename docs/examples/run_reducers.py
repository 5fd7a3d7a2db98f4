"""Events through a module's reducers, and a query for a dashboard."""

import asyncio

import word_count

from lo_kvs.kvs import InMemoryKVS
from lo_kvs.simulate import simulate
from lo_kvs.stream_analytics.helpers import EventField, KeyField
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.stream_analytics.query import states


async def main():
    pipeline = Pipeline.of_module(word_count)
    first, *rest = simulate(students=2, events=200, seed=7)
    async with InMemoryKVS() as store:
        await pipeline.process(first, store=store)  # one event: for servers
        errors = await pipeline.process_batch(rest, store=store)  # many: for logs and queues
        print("failed:", [error for error in errors if error is not None])

        rows = await states(
            word_count.words_typed,
            [
                {KeyField.STUDENT: "sim-student-000", EventField("doc_id"): "sim-doc-000-0"},
                {KeyField.STUDENT: "nobody", EventField("doc_id"): "sim-doc-000-0"},
            ],
            select={"typed": "words", "pages": "text.pages"},
            default=word_count.NOTHING,
            store=store,
        )
        for row in rows:
            print(row.values[KeyField.STUDENT], row.present, row.fields["typed"] > 0)
        print(rows[0].fields["pages"])


asyncio.run(main())

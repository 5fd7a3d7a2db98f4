"""A module with one reducer. Run it: `lo-kvs ingest FILE --reducers word_count`."""

from lo_kvs import EventField, KeyField, Scope, kvs_pipeline

BY_DOCUMENT = Scope([KeyField.STUDENT, EventField("doc_id")])
NOTHING = {"inserts": 0, "words": 0}


def inserted_texts(event):
    for bundle in event["client"].get("bundles") or []:
        for command in bundle["commands"]:
            if command["ty"] == "is":
                yield command["s"]


@kvs_pipeline(null_state=NOTHING, scope=BY_DOCUMENT)
async def words_typed(event, state):
    texts = list(inserted_texts(event))
    if not texts:
        return False, False  # nothing is written
    state["inserts"] += len(texts)  # the state is the reducer's own: change it as you like
    state["words"] += sum(len(text.split()) for text in texts)
    return state, {"words": state["words"]}


REDUCERS = [
    {
        "context": "org.mitros.writing_analytics",  # the events' metadata.source
        "function": words_typed,
        "scope": BY_DOCUMENT,
        "default": {"words": 0},  # what a query shows where there is no state yet
    }
]

"""Keys of reducers: made, and taken apart."""

from lo_kvs import reducers
from lo_kvs.stream_analytics.helpers import (
    EventField,
    KeyField,
    KeyStateType,
    make_key,
    make_key_from_json,
    parse_key,
)

INTERNAL, EXTERNAL = KeyStateType.INTERNAL, KeyStateType.EXTERNAL
DOC = EventField("doc_id")

print(make_key(reducers.event_count, {KeyField.STUDENT: "s1"}, EXTERNAL))
print(make_key("writing.reconstruct", {KeyField.STUDENT: "s1", DOC: "D"}, INTERNAL))
print(make_key("writing.reconstruct", {KeyField.STUDENT: "s1", DOC: "a,b"}, INTERNAL))
print(make_key("writing.reconstruct", {KeyField.STUDENT: "s1", DOC: "D,STUDENT:s2"}, INTERNAL))
print(make_key("writing.weather", {}, INTERNAL))

asked = {"source": "writing.reconstruct", "KeyField.STUDENT": "s1", "state_type": "External"}
print(make_key_from_json(asked, sources=["writing.reconstruct"]))

parts = parse_key("Internal,m.f,EventField.doc_id:D%2CSTUDENT:s2,STUDENT:s1")
print(parts.state_type.value, parts.reducer, parts.fields)
print(parse_key("NLP_CACHE_17"))

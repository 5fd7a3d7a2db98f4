"""Build the keys of reducers' states, and parse them."""

import lo_kvs
from lo_kvs import reducers

INTERNAL, EXTERNAL = lo_kvs.KeyStateType.INTERNAL, lo_kvs.KeyStateType.EXTERNAL
STUDENT, DOC = lo_kvs.KeyField.STUDENT, lo_kvs.EventField("doc_id")

print(lo_kvs.make_key(reducers.event_count, {STUDENT: "s1"}, EXTERNAL))
print(lo_kvs.make_key("writing.reconstruct", {STUDENT: "s1", DOC: "D"}, INTERNAL))
print(lo_kvs.make_key("writing.reconstruct", {STUDENT: "s1", DOC: "a,b"}, INTERNAL))
print(lo_kvs.make_key("writing.reconstruct", {STUDENT: "s1", DOC: "D,STUDENT:s2"}, INTERNAL))
print(lo_kvs.make_key("writing.weather", {}, INTERNAL))

request = {"source": "writing.reconstruct", "KeyField.STUDENT": "s1", "state_type": "External"}
print(lo_kvs.make_key_from_json(request, sources=["writing.reconstruct"]))

parts = lo_kvs.parse_key("Internal,m.f,EventField.doc_id:D%2CSTUDENT:s2,STUDENT:s1")
print(parts.state_type.value, parts.reducer, parts.fields)
print(lo_kvs.parse_key("NLP_CACHE_17"))

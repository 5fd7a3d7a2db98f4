# Types of what is compiled; the code stands in routes.py.

from lo_kvs.stream_analytics.engine.scope cimport named_student, text_of

cdef class Route:
    cdef object _kept, _reducers
    cdef list _names
    cdef dict _plans
    cpdef tuple plan(self, client, metadata)

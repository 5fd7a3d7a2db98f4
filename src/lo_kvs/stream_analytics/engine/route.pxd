# C types for the compiled module; the code is in route.py.

from lo_kvs.stream_analytics.engine.scope cimport named_student, text_of

cdef class Route:
    cdef object _kept, _reducers
    cdef list _names
    cdef dict _plans
    cpdef tuple plan(self, client, metadata)

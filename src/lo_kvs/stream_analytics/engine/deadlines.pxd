# C types for the compiled module; the code is in deadlines.py.

from lo_kvs.stream_analytics.engine.backpressure cimport Backpressure

cdef class EventDeadlines:
    cdef object _loop, _store, _sweep
    cdef Backpressure _backpressure
    cdef Py_ssize_t _failed_attempts, _ticks
    cdef public double unavailable_since
    cdef public object now
    cdef public bint ticking
    cpdef start(self)
    cpdef mark_unavailable(self)
    cpdef deadline(self, double submitted_at)
    cpdef attempt(self)
    cpdef bint is_prompt(self, attempt) except -1

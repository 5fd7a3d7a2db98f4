# Types of what is compiled; the code stands in clock.py.

from learning_observer.stream_analytics.room cimport Room

cdef class Clock:
    cdef object _loop, _store, _sweep
    cdef Room _room
    cdef Py_ssize_t _in_vain, _ticks
    cdef public double troubled_at
    cdef public object now
    cdef public bint ticking
    cpdef start(self)
    cpdef in_trouble(self)
    cpdef deadline(self, double came)
    cpdef attempt(self)
    cpdef bint is_prompt(self, attempt) except -1

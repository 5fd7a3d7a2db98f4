# Types of what is compiled; the code stands in engine.py.

from learning_observer.stream_analytics.held_state cimport HeldState

cpdef Py_ssize_t _size(object data)

cdef class Engine:
    cdef public object store, loop
    cdef object _thread, _limits, _resting, _tasks, _callers
    cdef public dict _states
    cdef list _missing
    cdef public Py_ssize_t _cache_bytes, _waiting_events
    cpdef take(self, HeldState held, object event)
    cpdef HeldState held(self, object reducer, object keys)
    cpdef bint is_here(self)
    cpdef bint is_full(self)
    cpdef answered(self, Py_ssize_t events)
    cpdef rest(self, HeldState held)
    cdef _forget(self, HeldState held)
    cdef _wake(self, HeldState held)

# Types of what is compiled; the code stands in engine.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Batch, Part
from learning_observer.stream_analytics.fold cimport Reducer
from learning_observer.stream_analytics.held_state cimport HeldState

cpdef Py_ssize_t _size(object data)

cdef class Place:
    cdef public Reducer reducer
    cdef public object keys
    cdef public HeldState held

cdef class Engine:
    cdef public object store, loop
    cdef object _thread, _limits, _resting, _tasks, _callers
    cdef public dict _states
    cdef list _missing
    cdef public Py_ssize_t _cache_bytes, _waiting_events
    cpdef take(self, HeldState held, object event)
    cpdef HeldState held(self, object reducer, object keys)
    @cython.locals(held=HeldState, part=Part)
    cpdef take_part(self, Place place, object event, Py_ssize_t at, Py_ssize_t rank, Batch batch)
    @cython.locals(held=HeldState)
    cpdef _wake_all(self, list states)
    cpdef bint is_here(self)
    cpdef bint is_full(self)
    cpdef answered(self, Py_ssize_t events)
    cpdef rest(self, HeldState held)
    cdef _forget(self, HeldState held)
    cdef _wake(self, HeldState held)

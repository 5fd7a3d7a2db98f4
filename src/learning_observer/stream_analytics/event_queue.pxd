# Types of what is compiled; the code stands in event_queue.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Part
from learning_observer.stream_analytics.cache cimport Cached
from learning_observer.stream_analytics.clock cimport Clock
from learning_observer.stream_analytics.wakeups cimport Failed, Wakeups

cdef class EventQueue(Cached)

cdef class Keeper:
    cdef public Clock clock
    cdef public Wakeups wakeups
    cdef public object reducer_timeout
    cpdef answered(self, Py_ssize_t before, Py_ssize_t after)
    cpdef rest(self, EventQueue held)
    cpdef spawn(self, object work, object lost)
    cpdef end_process(self, object error)

cdef class EventQueue(Cached):
    cdef public list waiting
    cdef public Py_ssize_t folded, stop
    cdef Py_ssize_t _sweep_at
    cdef public Keeper keeper
    cdef public object keys
    @cython.locals(waiting=list)
    cpdef add(self, object event, object caller)
    @cython.locals(waiting=list, most=Py_ssize_t, end=Py_ssize_t, at=Py_ssize_t, came=double)
    cpdef Py_ssize_t end(self) except -1
    @cython.locals(waiting=list, at=Py_ssize_t)
    cpdef bint tell_late(self) except -1
    @cython.locals(
        waiting=list, left=list, before=Py_ssize_t, begun=Py_ssize_t, stop=Py_ssize_t, at=Py_ssize_t
    )
    cpdef sweep(self)
    cpdef renew(self)
    @cython.locals(at=Py_ssize_t)
    cpdef fail_folded(self, object error)
    cpdef fail_all(self, object error)
    @cython.locals(
        count=Py_ssize_t, before=Py_ssize_t, at=Py_ssize_t, part=Part, waiting=list
    )
    cpdef answer(self)

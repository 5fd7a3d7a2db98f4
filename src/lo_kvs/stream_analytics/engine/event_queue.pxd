# C types for the compiled module; the code is in event_queue.py.

cimport cython

from lo_kvs.stream_analytics.engine.batch cimport BatchShare
from lo_kvs.stream_analytics.engine.cache cimport Cached
from lo_kvs.stream_analytics.engine.deadlines cimport EventDeadlines
from lo_kvs.stream_analytics.engine.wakeups cimport Failed, Wakeups

cdef class EventQueue(Cached)

cdef class EngineBase:
    cdef public EventDeadlines deadlines
    cdef public Wakeups wakeups
    cdef public object reducer_timeout
    cpdef answered(self, Py_ssize_t before, Py_ssize_t after)
    cpdef became_idle(self, EventQueue slot)
    cpdef spawn(self, object work, object on_failure)
    cpdef end_process(self, object error)

cdef class EventQueue(Cached):
    cdef public list waiting
    cdef public Py_ssize_t folded, stop
    cdef Py_ssize_t _sweep_at
    cdef public EngineBase engine
    cdef public object keys
    @cython.locals(waiting=list)
    cpdef add(self, object event, object caller)
    @cython.locals(waiting=list, most=Py_ssize_t, end=Py_ssize_t, at=Py_ssize_t, submitted_at=double)
    cpdef Py_ssize_t end(self) except -1
    @cython.locals(waiting=list, at=Py_ssize_t)
    cpdef bint fail_expired(self) except -1
    @cython.locals(
        waiting=list, left=list, before=Py_ssize_t, begun=Py_ssize_t, stop=Py_ssize_t, at=Py_ssize_t
    )
    cpdef sweep(self)
    cpdef renew(self)
    @cython.locals(at=Py_ssize_t)
    cpdef fail_folded(self, object error)
    cpdef fail_all(self, object error)
    @cython.locals(
        count=Py_ssize_t, before=Py_ssize_t, at=Py_ssize_t, share=BatchShare, waiting=list
    )
    cpdef answer(self)

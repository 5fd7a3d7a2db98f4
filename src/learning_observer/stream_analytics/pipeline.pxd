# Types of what is compiled; the code stands in pipeline.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Batch
from learning_observer.stream_analytics.engine cimport Engine, Place, default_store, engine_of
from learning_observer.stream_analytics.keyed cimport is_mapping, member_of
from learning_observer.stream_analytics.routes cimport Route

cdef class Pipeline:
    cdef public list reducers
    cdef dict _routes
    cdef Engine _engine
    @cython.locals(route=Route)
    cpdef tuple plan(self, event)
    @cython.locals(place=Place)
    cdef Py_ssize_t _take_turn(
        self, Engine engine, event, tuple plan, Py_ssize_t rank, Batch batch
    ) except -1
    @cython.locals(at=Py_ssize_t)
    cdef Py_ssize_t _first_to_run(self, events, Batch batch) except -1
    @cython.locals(at=Py_ssize_t, rank=Py_ssize_t, plan=tuple)
    cdef _take_in(self, Engine engine, events, Py_ssize_t begin, Batch batch)

cpdef tuple check_event(event)

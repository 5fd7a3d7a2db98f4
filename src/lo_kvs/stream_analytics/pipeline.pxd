# C types for the compiled module; the code is in pipeline.py.

cimport cython

from lo_kvs.stream_analytics.engine.batch cimport Batch
from lo_kvs.stream_analytics.engine.engine cimport Engine, Target, default_store, engine_of
from lo_kvs.stream_analytics.engine.scope cimport is_mapping, member_of
from lo_kvs.stream_analytics.engine.route cimport Route

cdef class Pipeline:
    cdef public list reducers
    cdef dict _routes
    cdef Engine _engine
    @cython.locals(route=Route)
    cpdef tuple plan(self, event)
    @cython.locals(target=Target)
    cdef Py_ssize_t _take_turn(
        self, Engine engine, event, tuple plan, Py_ssize_t reducer_index, Batch batch
    ) except -1
    @cython.locals(at=Py_ssize_t)
    cdef Py_ssize_t _first_to_run(self, events, Batch batch) except -1
    @cython.locals(at=Py_ssize_t, reducer_index=Py_ssize_t, plan=tuple)
    cdef _submit_all(self, Engine engine, events, Py_ssize_t begin, Batch batch)

cpdef tuple check_event(event)

# Types of what is compiled; the code stands in pipeline.py.

from learning_observer.stream_analytics.batch cimport Batch
from learning_observer.stream_analytics.engine cimport Engine, Place
from learning_observer.stream_analytics.routes cimport Route

cdef class Pipeline:
    cdef public list reducers
    cdef dict _routes
    cpdef tuple plan(self, event)

cpdef tuple check_event(event)

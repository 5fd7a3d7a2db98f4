# C types for the compiled module; the code is in engine.py.

cimport cython

from lo_kvs.stream_analytics.engine.batch cimport Batch, BatchShare
from lo_kvs.stream_analytics.engine.cache cimport Cache
from lo_kvs.stream_analytics.engine.event_queue cimport EventQueue, EngineBase
from lo_kvs.stream_analytics.engine.fold cimport Reducer
from lo_kvs.stream_analytics.engine.state_slot cimport StateSlot
from lo_kvs.stream_analytics.engine.backpressure cimport Backpressure
from lo_kvs.stream_analytics.engine.wakeups cimport Wakeups

cdef class Target:
    cdef public Reducer reducer
    cdef public object keys
    cdef public StateSlot slot

cdef class Engine(EngineBase):
    cdef public object store, loop
    cdef object _thread, _tasks
    cdef public Backpressure backpressure
    cdef readonly Cache _cache
    cdef public dict _states
    cdef list _missing, _ready
    cpdef submit(self, StateSlot slot, object event)
    cpdef StateSlot slot(self, object reducer, object keys)
    @cython.locals(slot=StateSlot, share=BatchShare)
    cpdef submit_to_batch(self, Target target, object event, Py_ssize_t at, Py_ssize_t reducer_index, Batch batch)
    @cython.locals(slot=StateSlot)
    cpdef wake_all(self, list states)
    @cython.locals(slot=StateSlot)
    cpdef list take_states(self, Batch batch)
    @cython.locals(ready=list, folded=list, at=Py_ssize_t, slot=StateSlot)
    cpdef advance_ready(self)
    cpdef bint is_here(self)
    cpdef answered(self, Py_ssize_t before, Py_ssize_t after)
    @cython.locals(slot=StateSlot, states=dict)
    cpdef sweep(self)
    @cython.locals(state=StateSlot, oldest=StateSlot)
    cpdef became_idle(self, EventQueue slot)
    cdef _evict(self, StateSlot slot)
    cdef _wake(self, StateSlot slot)
    cpdef _fail_missing(self, list missing, error)

cpdef default_store()
cpdef Engine engine_of(object store, Engine known)

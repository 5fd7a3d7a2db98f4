# C types for the compiled module; the code is in state_slot.py.

cimport cython

from lo_kvs.stream_analytics.engine.batch cimport BatchShare
from lo_kvs.stream_analytics.engine.deadlines cimport EventDeadlines
from lo_kvs.stream_analytics.engine.event_queue cimport EventQueue, EngineBase
from lo_kvs.stream_analytics.engine.fold cimport Fold, Reducer
from lo_kvs.stream_analytics.engine.wakeups cimport Failed

cdef class StateSlot(EventQueue):
    cdef object _submit, _when_committed, _attempt
    cdef Fold _fold
    cdef public object data, state
    cdef public BatchShare share
    cdef public Reducer reducer
    cdef public bint running, known, fresh, evicted
    cpdef evict(self)
    cpdef found(self, object data)
    cpdef advance(self)
    cpdef bint fold_at_once(self) except -1
    @cython.locals(deadlines=EventDeadlines)
    cpdef committed(self, object outcome)
    cpdef fail(self, object error)
    @cython.locals(at=Py_ssize_t, fold=Fold, waiting=list)
    cdef _fold_here(self)
    cdef _failed(self, object error)
    cdef _reduced(self, Fold fold, object function, object event, bint wanted)
    @cython.locals(at=Py_ssize_t, waiting=list)
    cdef _reduce_again(self, Fold fold, object function)
    cpdef _fold_failed(self, object error)
    @cython.locals(submitted_at=double)
    cpdef submit_change(self)
    cdef _continue(self)

# Types of what is compiled; the code stands in held_state.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Part
from learning_observer.stream_analytics.clock cimport Clock
from learning_observer.stream_analytics.event_queue cimport EventQueue, Keeper
from learning_observer.stream_analytics.fold cimport Fold, Reducer
from learning_observer.stream_analytics.wakeups cimport Failed

cdef class HeldState(EventQueue):
    cdef object _submit, _when_committed, _attempt
    cdef Fold _fold
    cdef public object data, state
    cdef public Part part
    cdef public Reducer reducer
    cdef public bint running, known, fresh, forgotten
    cpdef let_go(self)
    cpdef found(self, object data)
    cpdef advance(self)
    cpdef bint fold_at_once(self) except -1
    @cython.locals(clock=Clock)
    cpdef committed(self, object outcome)
    cpdef fail(self, object error)
    @cython.locals(at=Py_ssize_t, fold=Fold, waiting=list)
    cdef _fold_here(self)
    cdef _failed(self, object error)
    cdef _reduced(self, Fold fold, object function, object event, bint wanted)
    @cython.locals(at=Py_ssize_t, waiting=list)
    cdef _make_again(self, Fold fold, object function)
    cpdef _fold_lost(self, object error)
    @cython.locals(came=double)
    cpdef hand_in(self)
    cdef _go_on(self)

# Types of what is compiled; the code stands in held_state.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Part
from learning_observer.stream_analytics.fold cimport Fold, Reducer

cdef class Failed:
    cdef public object error

cdef class HeldState:
    cdef object _submit, _when_committed
    cdef Fold _fold
    cdef list _answers
    cdef public list events, answered
    cdef public object keeper, keys, data, state
    cdef public Part part
    cdef public Reducer reducer
    cdef public bint running, known, fresh, forgotten
    cdef public Py_ssize_t size
    cpdef found(self, object data)
    cpdef advance(self)
    cpdef committed(self, object outcome)
    cpdef fail(self, object error)
    @cython.locals(count=Py_ssize_t, at=Py_ssize_t, fold=Fold)
    cdef _fold_at_once(self)
    cpdef _hand_in(self)
    @cython.locals(count=Py_ssize_t, at=Py_ssize_t, answers=list, waited=list)
    cdef _answer(self)
    cdef _go_on(self)

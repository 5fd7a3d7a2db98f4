# Types of what is compiled; the code stands in held_state.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Part
from learning_observer.stream_analytics.cache cimport Cached
from learning_observer.stream_analytics.fold cimport Fold, Reducer
from learning_observer.stream_analytics.wakeups cimport Failed, Wakeups

cdef class Keeper:
    cdef public Wakeups wakeups
    cdef public double troubled_at
    cdef public object now
    cpdef deadline(self, double came)
    cpdef in_trouble(self)
    cpdef answered(self, Py_ssize_t events)
    cpdef rest(self, HeldState held)
    cpdef spawn(self, object work)

cdef class HeldState(Cached):
    cdef object _submit, _when_committed
    cdef Fold _fold
    cdef Py_ssize_t _folded
    cdef public list waiting
    cdef public Keeper keeper
    cdef public object keys, data, state
    cdef public Part part
    cdef public Reducer reducer
    cdef public bint running, known, fresh, forgotten
    @cython.locals(waiting=list)
    cpdef add(self, object event, object caller)
    cpdef found(self, object data)
    cpdef advance(self)
    @cython.locals(at=Py_ssize_t)
    cpdef committed(self, object outcome)
    cpdef fail(self, object error)
    @cython.locals(waiting=list, end=Py_ssize_t, at=Py_ssize_t, came=double)
    cdef Py_ssize_t _end(self) except -1
    @cython.locals(waiting=list, at=Py_ssize_t)
    cdef bint _tell_late(self) except -1
    @cython.locals(at=Py_ssize_t, fold=Fold, waiting=list)
    cdef _fold_at_once(self)
    cdef _reduced(self, Fold fold, object function, object event, bint wanted)
    @cython.locals(at=Py_ssize_t, waiting=list)
    cdef _make_again(self, Fold fold, object function)
    @cython.locals(came=double)
    cpdef _hand_in(self)
    @cython.locals(count=Py_ssize_t, at=Py_ssize_t, waiting=list)
    cdef _answer(self)
    cdef _go_on(self)

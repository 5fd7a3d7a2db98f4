# C types for the compiled module; the code is in backpressure.py.

cimport cython

cdef class Backpressure:
    cdef object _loop, _callers
    cdef Py_ssize_t _events_max
    cdef public Py_ssize_t events, share
    cpdef bint is_full(self)
    cpdef bint has_waiting_callers(self)
    @cython.locals(events=Py_ssize_t)
    cpdef changed(self, Py_ssize_t before, Py_ssize_t after)
    cpdef release(self, Py_ssize_t events)

# Types of what is compiled; the code stands in room.py.

cimport cython

cdef class Backpressure:
    cdef object _loop, _callers
    cdef Py_ssize_t _most
    cdef public Py_ssize_t events, share
    cpdef bint is_full(self)
    cpdef bint is_waited_for(self)
    @cython.locals(events=Py_ssize_t)
    cpdef changed(self, Py_ssize_t before, Py_ssize_t after)
    cpdef release(self, Py_ssize_t events)

# Types of what is compiled; the code stands in room.py.

cdef class Room:
    cdef object _loop, _callers
    cdef Py_ssize_t _most
    cdef public Py_ssize_t events
    cpdef bint is_full(self)
    cpdef leave(self, Py_ssize_t events)

# Types for the compiled version of inbox.py.

cimport cython

cdef class Inbox:
    cdef object _begin, _hurry
    cdef Py_ssize_t _enough
    cdef str _closed
    cdef public object waiting
    cdef public bint busy
    cpdef submit(self, object item, object done, object deadline=*)
    cpdef close(self, str why)

@cython.locals(at=Py_ssize_t)
cpdef resolve_all(list group, object answers)

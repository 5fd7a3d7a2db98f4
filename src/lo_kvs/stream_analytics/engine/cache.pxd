# C types for the compiled module; the code is in cache.py.

cimport cython

cdef class Cached:
    cdef Cached _before, _after
    cdef Py_ssize_t _own_size, _size, _text_size
    @cython.locals(text_size=Py_ssize_t, width=Py_ssize_t)
    cpdef measure(self, bytes data)

cdef class Cache:
    cdef Py_ssize_t _bytes_max
    cdef Cached _ends
    cdef public Py_ssize_t bytes
    @cython.locals(ends=Cached, latest=Cached)
    cpdef put(self, Cached used)
    @cython.locals(before=Cached, after=Cached)
    cpdef take_out(self, Cached cached)
    @cython.locals(oldest=Cached)
    cpdef Cached surplus(self)

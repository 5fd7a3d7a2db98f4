# Types of what is compiled; the code stands in _words.pyx.

cimport cython

cdef struct Word:
    const char* data
    Py_ssize_t size

@cython.final
cdef class BulkStrings:
    cdef Word* words
    cdef Py_ssize_t count, room, size, prefix_size, marked_count, marked_size
    cdef bytes prefix
    cdef int make_room(self, Py_ssize_t room) except -1
    cdef int put(self, const char* data, Py_ssize_t size) except -1
    cdef int put_bytes(self, bytes word) except -1
    cdef void mark(self) noexcept
    cdef void go_back(self) noexcept
    cdef char* write(self, char* end) noexcept

cdef Py_ssize_t digits_of(Py_ssize_t number) noexcept
cdef char* with_number(char* end, const char* kind, Py_ssize_t number) noexcept

# Types of what is compiled; the code stands in batch.py.

cdef class Batch:
    cdef public list errors
    cdef dict _ranks
    cdef Py_ssize_t _left
    cdef object _complete
    cpdef failed(self, Py_ssize_t at, Py_ssize_t rank, object error)
    cpdef expect(self)
    cpdef answer(self)

cdef class Part:
    cdef public Batch batch
    cdef public list places, ranks
    cdef public Py_ssize_t answers
    cpdef answer(self, object error)

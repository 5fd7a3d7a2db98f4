# Types of what is compiled; the code stands in batch.py.

cdef class Batch:
    cdef public list errors, states
    cdef dict _ranks
    cdef Py_ssize_t _left
    cdef object _complete
    cpdef failed(self, Py_ssize_t at, Py_ssize_t rank, object error)
    cpdef expect(self, object state)
    cpdef answer(self)

cdef class Part:
    cdef public Batch batch
    cdef list _places
    cdef Py_ssize_t _answers
    cpdef add(self, Py_ssize_t at, Py_ssize_t rank)
    cpdef answer(self, object error)

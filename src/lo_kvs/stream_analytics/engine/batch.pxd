# C types for the compiled module; the code is in batch.py.

from lo_kvs.stream_analytics.engine.wakeups cimport Wakeups

cdef class Batch:
    cdef public list errors, states
    cdef dict _error_indexes
    cdef public Py_ssize_t left
    cdef object _complete
    cdef bint _stopped
    cdef Wakeups _wakeups
    cpdef failed(self, Py_ssize_t at, Py_ssize_t reducer_index, object error)
    cpdef expect(self, object state)
    cpdef answer(self)
    cpdef complete(self, Wakeups wakeups)
    cpdef stop(self)
    cpdef bint is_abandoned(self) except -1

cdef class BatchShare:
    cdef public Batch batch
    cdef list _positions
    cdef Py_ssize_t _answers
    cpdef add(self, Py_ssize_t at, Py_ssize_t reducer_index)
    cpdef answer(self, object error)

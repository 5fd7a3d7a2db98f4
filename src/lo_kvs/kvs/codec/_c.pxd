# What other compiled modules use of the codec.

from cpython.object cimport PyObject

cdef bint is_owned(PyObject* value, Py_ssize_t holders, int depth) noexcept

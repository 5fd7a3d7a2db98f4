# C types for the compiled module; the code is in wakeups.py.

cimport cython

cdef class Failed:
    cdef public object error

cdef class Wakeups:
    cdef object _loop, _after
    cdef list _made, _futures, _answers
    cdef public bint waking
    cpdef future(self)
    cpdef answer(self, object future, object answer)
    @cython.locals(
        futures=list, answers=list, callers=list, answered=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t
    )
    cpdef _wake_all(self)
    @cython.locals(made=list)
    cdef _make(self, Py_ssize_t count)
    @cython.locals(waiting=list)
    cdef _give(self, object future, object answer, list callers)
    cdef _wake(self, tuple caller)

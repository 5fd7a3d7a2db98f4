# Types of what is compiled; the code stands in wakeups.py.

cimport cython

cdef class Failed:
    cdef public object error

cdef class Wakeups:
    cdef object _loop, _after
    cdef list _futures, _answers
    cdef public bint waking
    cpdef answer(self, object future, object answer)
    @cython.locals(futures=list, answers=list, woken=Py_ssize_t, at=Py_ssize_t)
    cpdef _wake_all(self)
    @cython.locals(waiting=list, callback=object, context=object)
    cdef _wake(self, object future, object answer)

# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The compiled version of `call.run_purely`."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF

from lo_kvs.kvs.codec._c cimport is_owned
from lo_kvs.stream_analytics.engine.fold cimport Fold

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object, object, PyObject**) except PYGEN_ERROR
    Py_ssize_t Py_REFCNT(PyObject*)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    bint PyTuple_CheckExact(PyObject*)
    Py_ssize_t PyTuple_GET_SIZE(PyObject*)


def run(function, event, Fold fold not None, bint wanted, /):
    # The state is not kept in a variable, so that only the reducer refers to it.
    cdef object waiting = function(event, fold.next_state())
    cdef PyObject* result = NULL
    cdef PyObject* internal
    cdef PyObject* external
    cdef bint internal_owned = False, external_owned = False
    cdef PySendResult state = PyIter_Send(waiting, None, &result)
    if state == PYGEN_NEXT:
        Py_XDECREF(result)
        waiting.close()
        raise RuntimeError("the reducer has no `await` but suspended")
    waiting = None  # drop the finished coroutine, in case it still refers to the result
    # Any other reference to the pair, a half or a part of a half shows in the counts.
    if PyTuple_CheckExact(result) and PyTuple_GET_SIZE(result) == 2 and Py_REFCNT(result) == 1:
        internal = PyTuple_GET_ITEM(result, 0)
        external = PyTuple_GET_ITEM(result, 1)
        if internal == external:
            internal_owned = is_owned(internal, 2, 0)
        else:
            internal_owned = is_owned(internal, 1, 0)
            external_owned = is_owned(external, 1, 0)
    returned = <object>result
    Py_XDECREF(result)
    return fold.apply(returned, wanted, internal_owned, external_owned)

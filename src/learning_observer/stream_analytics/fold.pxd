# Types of what is compiled; the code stands in fold.py.

cdef class Reducer:
    cdef public str name
    cdef public object function
    cdef public bytes null
    cdef public bint awaits

cdef class Fold:
    cdef object _base, _external, _keys
    cdef Reducer _reducer
    cdef bint _stale, _writes_external, _writes_internal
    cdef public object data, state
    cpdef begin(self, object data, object state)
    cpdef next_state(self)
    cpdef take(self, object result, bint wanted, bint internal_owned=*, bint external_owned=*)
    cpdef change(self, bint verify)

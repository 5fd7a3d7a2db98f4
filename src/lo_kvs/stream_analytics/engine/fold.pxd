# C types for the compiled module; the code is in fold.py.

cdef class Reducer:
    cdef public str name
    cdef public object function
    cdef public bytes null
    cdef public object timeout
    cdef public bint awaits, declines

cdef class Fold:
    cdef object _base, _external, _internal_key, _external_key
    cdef Reducer _reducer
    cdef bint _shown_lent, _stale, _writes_external, _writes_internal
    cdef public bint copies
    cdef public object data, state
    cpdef begin(self, object data, object state)
    cpdef restart(self)
    cpdef next_state(self)
    cpdef bint is_lost(self)
    cpdef apply(self, object result, bint wanted, bint internal_owned=*, bint external_owned=*)
    cpdef change(self, bint verify)

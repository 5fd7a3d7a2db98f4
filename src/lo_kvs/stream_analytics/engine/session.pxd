# C types for the compiled module; the code is in session.py.

cimport cython

from lo_kvs.stream_analytics.engine.engine cimport Engine, default_store, engine_of
from lo_kvs.stream_analytics.engine.state_slot cimport StateSlot

cdef class Session:
    cdef object _keyed, _student
    cdef bint _by_event
    cdef Engine _engine
    cdef StateSlot _slot
    @cython.locals(engine=Engine)
    cpdef submit(self, object event, object event_fields)
    @cython.locals(slot=StateSlot)
    cdef StateSlot _state(self, Engine engine, object event_fields)

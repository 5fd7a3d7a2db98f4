# Types of what is compiled; the code stands in session.py.

cimport cython

from learning_observer.stream_analytics.engine cimport Engine, default_store, engine_of
from learning_observer.stream_analytics.held_state cimport HeldState

cdef class Session:
    cdef object _keyed, _student
    cdef bint _by_event
    cdef Engine _engine
    cdef HeldState _held
    @cython.locals(engine=Engine)
    cpdef take(self, object event, object event_fields)
    @cython.locals(held=HeldState)
    cdef HeldState _state(self, Engine engine, object event_fields)

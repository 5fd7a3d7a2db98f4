# Types of what is compiled; the code stands in engine.py.

cimport cython

from learning_observer.stream_analytics.batch cimport Batch, Part
from learning_observer.stream_analytics.cache cimport Cache
from learning_observer.stream_analytics.event_queue cimport EventQueue, Keeper
from learning_observer.stream_analytics.fold cimport Reducer
from learning_observer.stream_analytics.held_state cimport HeldState
from learning_observer.stream_analytics.room cimport Room
from learning_observer.stream_analytics.wakeups cimport Wakeups

cdef class Place:
    cdef public Reducer reducer
    cdef public object keys
    cdef public HeldState held

cdef class Engine(Keeper):
    cdef public object store, loop
    cdef object _thread, _tasks
    cdef public Room room
    cdef readonly Cache _cache
    cdef public dict _states
    cdef list _missing, _ready
    cpdef take(self, HeldState held, object event)
    cpdef HeldState held(self, object reducer, object keys)
    @cython.locals(held=HeldState, part=Part)
    cpdef take_part(self, Place place, object event, Py_ssize_t at, Py_ssize_t rank, Batch batch)
    @cython.locals(held=HeldState)
    cpdef wake_all(self, list states)
    @cython.locals(held=HeldState)
    cpdef list taken_in(self, Batch batch)
    @cython.locals(ready=list, folded=list, at=Py_ssize_t, held=HeldState)
    cpdef advance_ready(self)
    cpdef bint is_here(self)
    cpdef answered(self, Py_ssize_t before, Py_ssize_t after)
    @cython.locals(held=HeldState, states=dict)
    cpdef sweep(self)
    @cython.locals(state=HeldState, oldest=HeldState)
    cpdef rest(self, EventQueue held)
    cdef _forget(self, HeldState held)
    cdef _wake(self, HeldState held)
    cpdef _fail_missing(self, list missing, error)

cpdef default_store()
cpdef Engine engine_of(object store, Engine known)

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The compiled twin of `packing`: the same words, written straight into one buffer."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memcpy

from learning_observer.kvs.changes import Change as _Change

cdef extern from "Python.h":
    ctypedef object (*allocfunc)(PyTypeObject*, Py_ssize_t)
    ctypedef struct PyTypeObject:
        allocfunc tp_alloc
    void Py_INCREF(object)
    void PyTuple_SET_ITEM(object, Py_ssize_t, object)
    void PyObject_GC_UnTrack(void*)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL


cdef class Buffer:
    """Bytes that grow at their end."""

    cdef char* data
    cdef Py_ssize_t size, room

    def __cinit__(self):
        self.room = 4096
        self.data = <char*>PyMem_Malloc(self.room)
        if self.data == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef char* data
        cdef Py_ssize_t room = self.room
        if self.size + more <= room:
            return 0
        while room < self.size + more:
            room *= 2
        data = <char*>PyMem_Realloc(self.data, room)
        if data == NULL:
            raise MemoryError()
        self.data, self.room = data, room
        return 0

    cdef inline void put(self, const char* data, Py_ssize_t size) noexcept:
        memcpy(self.data + self.size, data, size)
        self.size += size

    cdef inline void put_length(self, Py_ssize_t length) noexcept:
        """`$<length>` and a line's end."""
        cdef char digits[24]
        cdef int at = 24
        while True:
            at -= 1
            digits[at] = <char>(48 + length % 10)
            length //= 10
            if length == 0:
                break
        self.put(b"$", 1)
        self.put(&digits[at], 24 - at)
        self.put(b"\r\n", 2)

    cdef int put_word(self, const char* before, Py_ssize_t before_size,
                      const char* data, Py_ssize_t size) except -1:
        """One word of a command, in two parts."""
        self.reserve(before_size + size + 32)
        self.put_length(before_size + size)
        self.put(before, before_size)
        self.put(data, size)
        self.put(b"\r\n", 2)
        return 0

    cdef int put_bytes(self, bytes word) except -1:
        return self.put_word(b"", 0, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word))


cdef class Keys:
    """The keys of a call: those that are read, and the others, which stand behind them."""

    cdef Buffer read, unread
    cdef Py_ssize_t count, read_count
    cdef bytes prefix
    cdef object name

    def __cinit__(self, bytes prefix, name):
        self.read, self.unread = Buffer(), Buffer()
        self.prefix, self.name = prefix, name

    cdef int put(self, object key, bint read) except -1:
        cdef Py_ssize_t size = 0
        cdef const char* text
        if self.name is not None:
            key = self.name(key)
        text = PyUnicode_AsUTF8AndSize(key, &size)
        (self.read if read else self.unread).put_word(
            PyBytes_AS_STRING(self.prefix), PyBytes_GET_SIZE(self.prefix), text, size
        )
        self.count += 1
        self.read_count += read
        return 0


cdef object Change = _Change
#: As in `packing`.
cdef Py_ssize_t READ_BYTES_MAX = 512


cdef inline bint is_read(object put):
    return put is not None and PyBytes_GET_SIZE(put) <= READ_BYTES_MAX


def change_of(str guard not None, expected, dict puts not None, /):
    """A `Change` of texts and bytes, which can be part of no cycle: the garbage collector need
    not look at it, and of a thousand that wait at a time it would look at each several times."""
    cdef object change = (<PyTypeObject*>Change).tp_alloc(<PyTypeObject*>Change, 3)
    Py_INCREF(guard)
    PyTuple_SET_ITEM(change, 0, guard)
    Py_INCREF(expected)
    PyTuple_SET_ITEM(change, 1, expected)
    Py_INCREF(puts)
    PyTuple_SET_ITEM(change, 2, puts)
    PyObject_GC_UnTrack(<void*>change)
    return change


def pack(waiting, list group, bytes prefix, bytes record, tuple numbers, /,
         int changes_max, Py_ssize_t bytes_max, Py_ssize_t large_bytes, name=None):
    cdef Keys keys = Keys(prefix, name)
    cdef Buffer args = Buffer(), layout = Buffer()
    cdef Py_ssize_t arg_count = 0
    cdef set named = set()
    cdef object popleft = waiting.popleft
    cdef object item, change
    cdef dict puts
    cdef object guard, expected, key, put, before
    cdef bint own, clash, read
    cdef Py_ssize_t size
    keys.read.put_bytes(record)
    while waiting and len(group) < changes_max and args.size < bytes_max:
        item = waiting[0]
        change = (<tuple>item)[0]  # a Change: a tuple of three
        guard, expected = (<tuple>change)[0], (<tuple>change)[1]
        puts = (<tuple>change)[2] if type((<tuple>change)[2]) is dict else dict(change[2])
        if guard in named:
            break
        clash = False
        size = PyBytes_GET_SIZE(expected) if type(expected) is bytes else 0
        for key, put in puts.items():
            if key in named:
                clash = True
                break
            if put is not None:
                size += PyBytes_GET_SIZE(put)
        if clash or size >= large_bytes:
            break
        group.append(popleft())
        named.add(guard)
        layout.reserve(len(puts) + 2)
        read = True
        if expected is None:
            layout.put(b"n", 1)
        elif type(expected) is bytes:
            layout.put(b"v", 1)
            args.put_bytes(expected)
            arg_count += 1
        else:
            read = is_read(puts.get(guard))
            layout.put(b"a" if read else b"A", 1)
        keys.put(guard, read)
        before = None
        for key, put in puts.items():
            own = key is guard or key == guard
            read = is_read(put)
            if not own:
                named.add(key)
                keys.put(key, read)
            if put is None:
                layout.put(b"d" if own else b"X", 1)
            elif put is before and not own:
                layout.put(b"r" if read else b"R", 1)
            else:
                layout.put(b"g" if own else b"s" if read else b"S", 1)
                args.put_bytes(put)
                arg_count += 1
                before = put
        layout.put(b".", 1)
    numbers += (keys.read_count,)
    # Besides: how many keys there are, the record, and the layout.
    return 3 + keys.count + len(numbers) + arg_count, assembled(keys, numbers, layout, args)


cdef bytes assembled(Keys keys, tuple numbers, Buffer layout, Buffer args):
    cdef Buffer head = Buffer(), middle = Buffer()
    cdef object number
    cdef bytes packed
    cdef char* end
    head.put_bytes(str(1 + keys.count).encode())  # with the record
    for number in numbers:
        middle.put_bytes(str(number).encode())
    middle.put_word(b"", 0, layout.data, layout.size)
    packed = PyBytes_FromStringAndSize(
        NULL, head.size + keys.read.size + keys.unread.size + middle.size + args.size
    )
    end = PyBytes_AS_STRING(packed)
    for part in (head, keys.read, keys.unread, middle, args):
        memcpy(end, (<Buffer>part).data, (<Buffer>part).size)
        end += (<Buffer>part).size
    return packed

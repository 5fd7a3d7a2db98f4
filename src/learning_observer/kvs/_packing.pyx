# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, autotestdict=False
# cython: cdivision=True
"""The compiled twin of `packing`: the same words, copied once, straight to where they leave."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.set cimport PySet_GET_SIZE
from libc.string cimport memcpy

from learning_observer.kvs.changes import Change as _Change
from learning_observer.kvs.packing import Packed as _Packed

cdef extern from "Python.h":
    ctypedef object (*allocfunc)(PyTypeObject*, Py_ssize_t)
    ctypedef struct PyTypeObject:
        allocfunc tp_alloc
    void Py_INCREF(object)
    void PyTuple_SET_ITEM(object, Py_ssize_t, object)
    void PyObject_GC_UnTrack(void*)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL


cdef struct Word:
    const char* data
    Py_ssize_t size


cdef class Words:
    """Words of a command: where their bytes are, so that these are copied once, to their place.

    size    the bytes that the words take there, with what stands around each
    prefix  what each of them begins with
    """

    cdef Word* words
    cdef Py_ssize_t count, room, size, prefix_size
    cdef bytes prefix

    def __cinit__(self, Py_ssize_t room, bytes prefix=b""):
        self.prefix, self.prefix_size = prefix, PyBytes_GET_SIZE(prefix)
        self.make_room(room)

    def __dealloc__(self):
        PyMem_Free(self.words)

    cdef int make_room(self, Py_ssize_t room) except -1:
        cdef Word* words = <Word*>PyMem_Realloc(self.words, room * sizeof(Word))
        if words == NULL:
            raise MemoryError()
        self.words, self.room = words, room
        return 0

    cdef int put(self, const char* data, Py_ssize_t size) except -1:
        if self.count == self.room:
            self.make_room(2 * self.room + 8)
        self.words[self.count] = Word(data, size)
        self.count += 1
        size += self.prefix_size
        self.size += 5 + digits_of(size) + size  # `$<size>`, and two line's ends
        return 0

    cdef int put_bytes(self, bytes word) except -1:
        return self.put(PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word))

    cdef char* write(self, char* end) noexcept:
        """Write the words to `end`; returns where they end."""
        cdef const char* prefix = PyBytes_AS_STRING(self.prefix)
        cdef Word* word
        cdef Py_ssize_t at
        for at in range(self.count):
            word = &self.words[at]
            end = with_number(end, b"$", self.prefix_size + word.size)
            memcpy(end, prefix, self.prefix_size)
            end += self.prefix_size
            memcpy(end, word.data, word.size)
            end += word.size
            end[0], end[1] = b"\r", b"\n"
            end += 2
        return end


cdef inline Py_ssize_t digits_of(Py_ssize_t number) noexcept:
    cdef Py_ssize_t digits = 1
    while number >= 10:
        number //= 10
        digits += 1
    return digits


cdef inline char* with_number(char* end, const char* kind, Py_ssize_t number) noexcept:
    """Write `kind`, a number and a line's end to `end`; returns where they end."""
    cdef Py_ssize_t digits = digits_of(number), at
    end[0] = kind[0]
    for at in range(digits, 0, -1):
        end[at] = <char>(48 + number % 10)
        number //= 10
    end[digits + 1], end[digits + 2] = b"\r", b"\n"
    return end + digits + 3


cdef class Keys:
    """The keys of a call: those that are read, and the others, which stand behind them.

    names  what is not held by the changes themselves must be held until it has been written
    """

    cdef Words read, unread
    cdef list names
    cdef object name

    def __cinit__(self, bytes prefix, name, Py_ssize_t changes):
        self.read, self.unread = Words(2 * changes, prefix), Words(4, prefix)
        self.names, self.name = [], name

    cdef bytes number(self, value):
        """The number's text, held with the names."""
        cdef bytes text = str(value).encode()
        self.names.append(text)
        return text

    cdef int put(self, object key, bint read) except -1:
        cdef Py_ssize_t size = 0
        cdef const char* text
        if self.name is not None:
            key = self.name(key)
            self.names.append(key)
        text = PyUnicode_AsUTF8AndSize(key, &size)
        return (self.read if read else self.unread).put(text, size)


cdef object Change = _Change, Packed = _Packed
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


cdef inline bint added(set keys, object key) except -1:
    """Whether `key` was not among the keys; now it is."""
    cdef Py_ssize_t before = PySet_GET_SIZE(keys)
    keys.add(key)
    return PySet_GET_SIZE(keys) > before


def pack(begin, waiting, list group, bytes prefix, bytes record, tuple numbers, /,
         int changes_max, Py_ssize_t bytes_max, Py_ssize_t large_bytes,
         name=None):
    cdef Py_ssize_t changes = min(len(waiting), changes_max)
    cdef Keys keys = Keys(prefix, name, changes)
    cdef Words args = Words(1 + 3 * changes)
    cdef bytearray layout = bytearray()
    cdef Py_ssize_t value_bytes = 0
    cdef set named = set()
    cdef object popleft = waiting.popleft
    cdef object item, change, command
    cdef dict puts
    cdef object guard, expected, key, put, before
    cdef bint own, clash, read
    cdef Py_ssize_t size, at
    while waiting and len(group) < changes_max and value_bytes < bytes_max:
        item = popleft()
        group.append(item)
        change = (<tuple>item)[0]  # a Change: a tuple of three
        guard, expected = (<tuple>change)[0], (<tuple>change)[1]
        puts = (<tuple>change)[2] if type((<tuple>change)[2]) is dict else dict(change[2])
        clash = not added(named, guard)
        size = PyBytes_GET_SIZE(expected) if type(expected) is bytes else 0
        for key, put in puts.items():
            if not (key is guard or key == guard) and not added(named, key):
                clash = True
                break
            if put is not None:
                size += PyBytes_GET_SIZE(put)
        if clash or size >= large_bytes:
            waiting.appendleft(group.pop())
            break
        if puts is not (<tuple>change)[2]:
            keys.names.append(puts)
        read = True
        if expected is None:
            layout.append(c'n')
        elif type(expected) is bytes:
            layout.append(c'v')
            args.put_bytes(expected)
            value_bytes += PyBytes_GET_SIZE(expected)
        else:
            read = is_read(puts.get(guard))
            layout.append(c'a' if read else c'A')
        keys.put(guard, read)
        before = None
        for key, put in puts.items():
            own = key is guard or key == guard
            read = is_read(put)
            if not own:
                keys.put(key, read)
            if put is None:
                layout.append(c'd' if own else c'X')
            elif put is before and not own:
                layout.append(c'r' if read else c'R')
            else:
                layout.append(c'g' if own else c's' if read else c'S')
                args.put_bytes(put)
                value_bytes += PyBytes_GET_SIZE(put)
                before = put
        layout.append(c'.')
    command = assembled(begin, record, keys, numbers, layout, args)
    change = expected = puts = guard = key = put = before = None
    for at in range(len(group)):
        item = group[at]
        group[at] = ((<tuple>(<tuple>item)[0])[0], (<tuple>item)[1])
    return command


cdef object assembled(begin, bytes record, Keys keys, tuple numbers, bytearray layout,
                      Words args):
    cdef bytes before = begin[0]
    cdef Py_ssize_t key_count = keys.read.count + keys.unread.count
    cdef Words head = Words(2), middle = Words(8)
    cdef Words part
    cdef Py_ssize_t words, size, at
    cdef bytes command
    cdef char* first
    cdef char* end
    head.put_bytes(keys.number(1 + key_count))
    head.put_bytes(record)
    for each in (*numbers, keys.read.count):
        middle.put_bytes(keys.number(each))
    middle.put(PyByteArray_AS_STRING(layout), PyByteArray_GET_SIZE(layout))
    words = head.count + key_count + middle.count + args.count
    size = 3 + digits_of(<Py_ssize_t>begin[1] + words) + PyBytes_GET_SIZE(before)
    for part in (head, keys.read, keys.unread, middle, args):
        size += part.size
    command = PyBytes_FromStringAndSize(NULL, size)
    first = end = PyBytes_AS_STRING(command)
    end = with_number(end, b"*", <Py_ssize_t>begin[1] + words)
    memcpy(end, PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before))
    end += PyBytes_GET_SIZE(before)
    at = end - first
    for part in (head, keys.read, keys.unread, middle, args):
        end = part.write(end)
    return Packed(command, words, at)

# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, autotestdict=False
# cython: cdivision=True
"""The compiled version of `packing`: the same bytes, copied once, into the send buffer."""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.object cimport PyObject
from cpython.set cimport PySet_GET_SIZE
from libc.string cimport memcpy

from lo_kvs.kvs.redis.protocol._words cimport BulkStrings, digits_of, with_number

from lo_kvs.kvs.changes import Change as _Change
from lo_kvs.kvs.redis.protocol.packing import PackedCommand as _Packed

cdef extern from "Python.h":
    ctypedef object (*allocfunc)(PyTypeObject*, Py_ssize_t)
    ctypedef struct PyTypeObject:
        allocfunc tp_alloc
    void Py_INCREF(object)
    void PyTuple_SET_ITEM(object, Py_ssize_t, object)
    void PyObject_GC_UnTrack(void*)
    # Of references that are borrowed: to count one is to write to the object's memory.
    PyObject* Py_None
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    bint PyDict_Next(PyObject*, Py_ssize_t*, PyObject**, PyObject**)
    bint PyBytes_CheckExact(PyObject*)
    char* PyBytes_AS_STRING(PyObject*)
    Py_ssize_t PyBytes_GET_SIZE(PyObject*)
    bytes PyBytes_FromStringAndSize(const char*, Py_ssize_t)
    const char* PyUnicode_AsUTF8AndSize(PyObject*, Py_ssize_t*) except NULL
    int PyUnicode_Compare(PyObject*, PyObject*) except? -1


cdef object Change = _Change, PackedCommand = _Packed
#: As in `packing`.
cdef Py_ssize_t READ_BYTES_MAX = 512


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


cdef inline Py_ssize_t size_of(PyObject* put) except -2:
    """Of what is put under a key; -1 where the key is removed."""
    if put == Py_None:
        return -1
    if not PyBytes_CheckExact(put):
        raise TypeError(f"expected bytes or None, got {type(<object>put).__name__}")
    return PyBytes_GET_SIZE(put)


cdef inline bint is_read(Py_ssize_t size):
    return 0 <= size <= READ_BYTES_MAX


@cython.final
cdef class Parts:
    """The parts of a call: the keys that are read, the other keys, and the arguments.

    held  keeps objects alive until they are written, if the changes do not
    """

    cdef BulkStrings read, unread, args
    cdef bytearray layout
    cdef Py_ssize_t letters
    cdef set named
    cdef list held
    cdef object name

    def __cinit__(self, bytes prefix, name, Py_ssize_t changes):
        self.read, self.unread = BulkStrings(2 * changes, prefix), BulkStrings(4, prefix)
        self.args = BulkStrings(3 * changes)
        self.layout = bytearray(4 * changes)
        self.named, self.held, self.name = set(), [], name

    cdef Py_ssize_t put(self, object change, Py_ssize_t large_bytes) except -2:
        """Put a `Change` to those before it; returns the bytes of its arguments.

        -1 where it has `large_bytes`, or names a key that one before it names; then it is not
        put, and no other may be.
        """
        cdef PyObject* guard = PyTuple_GET_ITEM(<PyObject*>change, 0)
        cdef PyObject* expected = PyTuple_GET_ITEM(<PyObject*>change, 1)
        cdef PyObject* key
        cdef PyObject* value
        cdef PyObject* before = NULL
        cdef dict puts = self.puts_of(change)
        cdef BulkStrings words
        cdef Py_ssize_t at = 0, size, letter = self.letters, total = 0, repeated = 0
        cdef bint own, own_seen = False, read = True, fits
        cdef char* layout = self.room_for(2 + len(puts))
        for words in (self.read, self.unread, self.args):
            words.mark()
        if expected == Py_None:
            layout[letter] = b"n"
        elif PyBytes_CheckExact(expected):
            layout[letter] = b"v"
            total = self.put_bytes(expected)
        else:
            read = <object>guard in puts and is_read(size_of(<PyObject*>puts[<object>guard]))
            layout[letter] = b"a" if read else b"A"
        fits = self.put_key(guard, read)
        while PyDict_Next(<PyObject*>puts, &at, &key, &value):
            letter += 1
            size = size_of(value)
            read = is_read(size)
            own = not own_seen and (key == guard or PyUnicode_Compare(key, guard) == 0)
            if own:
                own_seen = True
            elif not self.put_key(key, read):
                fits = False
            if size < 0:
                layout[letter] = b"d" if own else b"X"
            elif value == before and not own:
                layout[letter] = b"r" if read else b"R"
                total, repeated = total + size, repeated + size
            else:
                layout[letter] = b"g" if own else b"s" if read else b"S"
                total += self.put_bytes(value)
                before = value
        layout[letter + 1] = b"."
        if not fits or total >= large_bytes:
            for words in (self.read, self.unread, self.args):
                words.go_back()
            return -1
        self.letters = letter + 2
        return total - repeated

    cdef dict puts_of(self, object change):
        puts = (<tuple>change)[2]
        if type(puts) is not dict:
            puts = dict(puts)
            self.held.append(puts)
        return puts

    cdef char* room_for(self, Py_ssize_t letters) except NULL:
        cdef Py_ssize_t end = self.letters + letters
        if end > PyByteArray_GET_SIZE(self.layout):
            PyByteArray_Resize(self.layout, 2 * end)
        return PyByteArray_AS_STRING(self.layout)

    cdef inline Py_ssize_t put_bytes(self, PyObject* value) except -1:
        """Put an argument; returns its bytes."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        self.args.put(PyBytes_AS_STRING(value), size)
        return size

    cdef bint put_key(self, PyObject* key, bint read) except -1:
        """Put a key; returns whether nobody has named it before."""
        cdef Py_ssize_t size = 0, before = PySet_GET_SIZE(self.named)
        cdef const char* text
        self.named.add(<object>key)
        if self.name is not None:
            name = self.name(<object>key)
            self.held.append(name)
            key = <PyObject*>name
        text = PyUnicode_AsUTF8AndSize(key, &size)
        (self.read if read else self.unread).put(text, size)
        return PySet_GET_SIZE(self.named) > before

    cdef bytes number(self, value):
        """The number's text, held with the rest."""
        cdef bytes text = str(value).encode()
        self.held.append(text)
        return text

    cdef object command(self, begin, bytes record, tuple numbers):
        """All of it, behind `begin`."""
        cdef bytes before = begin[0]
        cdef Py_ssize_t begin_size = len(before), begin_words = begin[1]
        cdef Py_ssize_t key_count = self.read.count + self.unread.count
        cdef BulkStrings head = BulkStrings(2), middle = BulkStrings(8)
        cdef BulkStrings part
        cdef Py_ssize_t words, size, at
        cdef bytes command
        cdef char* first
        cdef char* end
        head.put_bytes(self.number(1 + key_count))
        head.put_bytes(record)
        for each in (*numbers, self.read.count):
            middle.put_bytes(self.number(each))
        middle.put(PyByteArray_AS_STRING(self.layout), self.letters)
        words = head.count + key_count + middle.count + self.args.count
        size = 3 + digits_of(begin_words + words) + begin_size
        for part in (head, self.read, self.unread, middle, self.args):
            size += part.size
        command = PyBytes_FromStringAndSize(NULL, size)
        first = end = command
        end = with_number(end, b"*", begin_words + words)
        memcpy(end, <char*>before, begin_size)
        end += begin_size
        at = end - first
        for part in (head, self.read, self.unread, middle, self.args):
            end = part.write(end)
        return PackedCommand(command, words, at)


def pack(begin, waiting, list group, bytes prefix, bytes record, tuple numbers, /,
         int changes_max, Py_ssize_t bytes_max, Py_ssize_t large_bytes,
         name=None):
    cdef Parts parts = Parts(prefix, name, min(len(waiting), changes_max))
    cdef Py_ssize_t size = 0, more, at
    cdef object popleft = waiting.popleft
    cdef object item
    while waiting and len(group) < changes_max and size < bytes_max:
        item = popleft()
        group.append(item)  # before anything can go wrong with it
        more = parts.put((<tuple>item)[0], large_bytes)
        if more < 0:
            waiting.appendleft(group.pop())
            break
        size += more
    command = parts.command(begin, record, numbers)
    for at in range(len(group)):
        item = group[at]
        group[at] = ((<tuple>(<tuple>item)[0])[0], (<tuple>item)[1])
    return command

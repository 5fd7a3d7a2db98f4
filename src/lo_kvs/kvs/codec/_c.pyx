# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The compiled twin of the codec. Its promises stand in `_py`, which keeps the same ones.

One pass in C looks at the types and the depth; then orjson writes. Nothing in that pass
runs Python code, so borrowed references stay valid. What is not plain goes to `_write`,
and what orjson would read inexactly to `_read`, as in the pure twin.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem
from cpython.list cimport PyList_GetSlice
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject, PyTypeObject
from libc.math cimport isfinite
from libc.string cimport memcmp

import orjson as _orjson

from lo_kvs.kvs.codec import _read as _exact_reading
from lo_kvs.kvs.codec import _write as _exact_writing

cdef extern from "Python.h":
    PyTypeObject* Py_TYPE(PyObject*) nogil
    PyTypeObject PyUnicode_Type, PyLong_Type, PyBool_Type, PyFloat_Type
    PyTypeObject PyDict_Type, PyList_Type
    PyObject* Py_None
    double PyFloat_AS_DOUBLE(PyObject*) nogil
    int PyUnicode_KIND(object)
    void* PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    Py_ssize_t Py_REFCNT(PyObject*) nogil
    PyObject* PyList_GET_ITEM(PyObject*, Py_ssize_t) nogil
    Py_ssize_t PyList_GET_SIZE(PyObject*) nogil

cdef object dumps = _orjson.dumps
cdef object loads = _orjson.loads
cdef object EncodeError = _orjson.JSONEncodeError
cdef object DecodeError = _orjson.JSONDecodeError
cdef object write = _exact_writing.write
cdef object read = _exact_reading.read
cdef object not_plain = _exact_writing.NOT_PLAIN
cdef int depth_max = _exact_writing.DEPTH_MAX


def encode(value, /):
    """`value` as compact UTF-8 JSON text. Raises NotJSON, which names the place."""
    if is_plain(<PyObject*>value, 0):
        try:
            return exactly(dumps(value))
        except EncodeError:
            return write(value)[0]
    return write(value)[0]


def encode_plain(value, /):
    """The text of what `plain_copy` has returned: nothing is looked at again."""
    return exactly(dumps(value))


def encode_state(value, /):
    """The text, and whether `value` was plain. Raises NotJSON, which names the place."""
    if is_plain(<PyObject*>value, 0):
        try:
            return exactly(dumps(value)), True
        except EncodeError:
            return write(value)
    return write(value)


cdef inline bytes exactly(bytes text):
    """`text` in as much memory as it needs: orjson leaves 4 KB around 7 bytes, 4 MB around
    109 KB (orjson 3.13.0), for as long as a state is held."""
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


def decode(data, /):
    """The value of JSON text. Raises ValueError, with the reason, where it is none."""
    if type(data) is not bytes:
        raise TypeError(f"expected bytes, got {type(data).__name__}")
    if has_big_integer(
        <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    ):
        return read(data)
    try:
        return loads(data)
    except DecodeError:
        return read(data)


def end_of_members(bytes data not None, Py_ssize_t at, Py_ssize_t most, /, *, bint first=False):
    """Where the last member ends that ends before `at + most`; as in the pure twin."""
    return end_of(
        <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), at, most, first
    )


cdef Py_ssize_t end_of(
    const unsigned char* text, Py_ssize_t size, Py_ssize_t begin, Py_ssize_t most, bint first
) noexcept nogil:
    cdef Py_ssize_t at = begin, last = -1, depth = 0
    cdef unsigned char mark
    while at < size:
        mark = text[at]
        if mark == b'"':
            if at - begin > most:
                return last
            at += 1
            while at < size and text[at] != b'"':
                at += 2 if text[at] == b"\\" else 1
            if at >= size:
                return -2
        elif mark == b"[" or mark == b"{":
            if at - begin > most:
                return last
            depth += 1
        elif mark == b"]" or mark == b"}":
            if at - begin > most:
                return last
            if depth == 0:
                return at
            depth -= 1
        elif mark == b",":
            if at - begin > most:
                return last
            if depth == 0:
                last = at
                if first:
                    return last
        at += 1
    return -2


def plain_copy(value, /):
    """A copy of `value`, if it is plain beyond doubt, else NOT_PLAIN."""
    return copied(value, 0)


cdef object copied(object value, int depth):
    cdef PyObject* here = <PyObject*>value
    cdef PyTypeObject* kind = Py_TYPE(here)
    cdef PyObject* key
    cdef PyObject* member
    cdef Py_ssize_t at = 0
    cdef object copy, inside
    if kind != &PyDict_Type and kind != &PyList_Type:
        return value if is_settled(here) else not_plain
    if depth >= depth_max:
        return not_plain
    if kind == &PyDict_Type:
        copy = PyDict_Copy(value)
        # The copy is walked: nobody else can change it, and its keys stay as they are.
        while PyDict_Next(copy, &at, &key, &member):
            if Py_TYPE(key) != &PyUnicode_Type or not is_settled(key):
                return not_plain
            if is_settled(member):
                continue
            inside = copied(<object>member, depth + 1)
            if inside is not_plain:
                return not_plain
            PyDict_SetItem(copy, <object>key, inside)
        return copy
    copy = PyList_GetSlice(value, 0, PyList_GET_SIZE(here))
    for at in range(PyList_GET_SIZE(<PyObject*>copy)):
        member = PyList_GET_ITEM(<PyObject*>copy, at)
        if is_settled(member):
            continue
        inside = copied(<object>member, depth + 1)
        if inside is not_plain:
            return not_plain
        copy[at] = inside
    return copy


cdef inline bint is_settled(PyObject* value) noexcept:
    """Whether a scalar is sure to be read back as it is: text may hold halves of characters,
    and an integer over 64 bits may have no text at all."""
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef int overflow = 0
    if kind == &PyUnicode_Type:
        return PyUnicode_KIND(<object>value) == 1 or is_whole(<object>value)
    if kind == &PyLong_Type:
        PyLong_AsLongLongAndOverflow(<object>value, &overflow)
        return overflow == 0
    if kind == &PyFloat_Type:
        return isfinite(PyFloat_AS_DOUBLE(value))
    return kind == &PyBool_Type or value == Py_None


cdef bint is_whole(object text) noexcept:
    """Whether wide text has no surrogates."""
    cdef Py_ssize_t at, length = PyUnicode_GET_LENGTH(text)
    cdef const unsigned short* narrow
    cdef const unsigned int* wide
    cdef int found = 0
    if PyUnicode_KIND(text) == 2:
        narrow = <const unsigned short*>PyUnicode_DATA(text)
        for at in range(length):  # without a way out, so that it is done sixteen at a time
            found |= (narrow[at] & 0xF800) == 0xD800
    else:
        wide = <const unsigned int*>PyUnicode_DATA(text)
        for at in range(length):
            found |= (wide[at] & 0xFFFFF800) == 0xD800
    return not found


cdef bint is_owned(PyObject* value, Py_ssize_t holders, int depth) noexcept:
    """Whether `value` is plain beyond doubt, and nobody holds it, or a part of it that can
    change, but `holders` known ones, and each container the parts in it.
    """
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef PyObject* key
    cdef PyObject* member
    cdef Py_ssize_t at = 0
    if kind == &PyDict_Type:
        if depth >= depth_max or Py_REFCNT(value) != holders:
            return False
        while PyDict_Next(<object>value, &at, &key, &member):
            if Py_TYPE(key) != &PyUnicode_Type or not is_settled(key):
                return False
            if not is_settled(member) and not is_owned(member, 1, depth + 1):
                return False
        return True
    if kind == &PyList_Type:
        if depth >= depth_max or Py_REFCNT(value) != holders:
            return False
        for at in range(PyList_GET_SIZE(value)):
            member = PyList_GET_ITEM(value, at)
            if not is_settled(member) and not is_owned(member, 1, depth + 1):
                return False
        return True
    return is_settled(value)


cdef bint is_plain(PyObject* value, int depth) noexcept:
    """Whether orjson may have `value`: exact plain types, finite floats, not too deep.

    `depth` is how many containers `value` is in. Integers over 64 bits and lone surrogates
    are left to orjson, which refuses them.
    """
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef PyObject* key
    cdef PyObject* member
    cdef Py_ssize_t at = 0
    if kind == &PyUnicode_Type or kind == &PyLong_Type:
        return True
    if kind == &PyFloat_Type:
        return isfinite(PyFloat_AS_DOUBLE(value))
    if kind == &PyDict_Type:
        if depth >= depth_max:
            return False
        while PyDict_Next(<object>value, &at, &key, &member):
            if Py_TYPE(key) != &PyUnicode_Type:
                return False
            kind = Py_TYPE(member)
            if kind == &PyUnicode_Type or kind == &PyLong_Type:
                continue
            if not is_plain(member, depth + 1):
                return False
        return True
    if kind == &PyList_Type:
        if depth >= depth_max:
            return False
        for at in range(PyList_GET_SIZE(value)):
            member = PyList_GET_ITEM(value, at)
            kind = Py_TYPE(member)
            if kind == &PyUnicode_Type or kind == &PyLong_Type:
                continue
            if not is_plain(member, depth + 1):
                return False
        return True
    return kind == &PyBool_Type or value == Py_None


cdef inline bint is_digit(unsigned char byte) noexcept nogil:
    return <unsigned char>(byte - 48) < 10


cdef bint has_big_integer(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    """Whether an integer in `text` has more than 64 bits: orjson would read a float.

    Such an integer has 19 digits or more, so looking at each 19th byte meets all of them.
    """
    cdef Py_ssize_t at = 18
    cdef Py_ssize_t begin, end
    while at < size:
        if not is_digit(text[at]):
            at += 19
            continue
        begin = at
        while begin > 0 and is_digit(text[begin - 1]):
            begin -= 1
        end = at + 1
        while end < size and is_digit(text[end]):
            end += 1
        if end - begin >= 19 and is_big(text, size, begin, end):
            return True
        at = end + 19
    return False


cdef bint is_big(
    const unsigned char* text, Py_ssize_t size, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Whether the digits are a whole integer literal, and one of more than 64 bits."""
    cdef Py_ssize_t digits = end - begin
    cdef bint negative = begin > 0 and text[begin - 1] == b"-"
    if negative:
        begin -= 1
    # Other neighbours: a part of a float, or text.
    if begin > 0 and not is_one_of(text[begin - 1], b" \t\n\r[,:", 7):
        return False
    if end < size and not is_one_of(text[end], b" \t\n\r],}", 7):
        return False
    if negative:
        return digits > 19 or memcmp(&text[begin + 1], b"9223372036854775808", 19) > 0
    return digits > 20 or (
        digits == 20 and memcmp(&text[begin], b"18446744073709551615", 20) > 0
    )


cdef inline bint is_one_of(unsigned char byte, const char* several, int count) noexcept nogil:
    cdef int at
    for at in range(count):
        if byte == <unsigned char>several[at]:
            return True
    return False

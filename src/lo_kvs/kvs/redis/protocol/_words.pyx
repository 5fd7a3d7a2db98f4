# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, autotestdict=False
# cython: cdivision=True
"""BulkStrings: collects the words of a command, so that each byte is copied only once."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy


cdef class BulkStrings:
    """References to the words of a command, so that their bytes are copied only once.

    size    the size of the encoded words, with lengths and line ends
    prefix  the prefix of each word
    """

    def __cinit__(self, Py_ssize_t room, bytes prefix=b""):
        self.prefix, self.prefix_size = prefix, len(prefix)
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
        return self.put(word, len(word))

    cdef void mark(self) noexcept:
        """`go_back` forgets what is put from here on."""
        self.marked_count, self.marked_size = self.count, self.size

    cdef void go_back(self) noexcept:
        self.count, self.size = self.marked_count, self.marked_size

    cdef char* write(self, char* end) noexcept:
        """Write the words to `end`; returns where they end."""
        cdef const char* prefix = self.prefix
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


cdef Py_ssize_t digits_of(Py_ssize_t number) noexcept:
    cdef Py_ssize_t digits = 1
    while number >= 10:
        number //= 10
        digits += 1
    return digits


cdef char* with_number(char* end, const char* kind, Py_ssize_t number) noexcept:
    """Write `kind`, a number and a line's end to `end`; returns where they end."""
    cdef Py_ssize_t digits = digits_of(number), at
    end[0] = kind[0]
    for at in range(digits, 0, -1):
        end[at] = <char>(48 + number % 10)
        number //= 10
    end[digits + 1], end[digits + 2] = b"\r", b"\n"
    return end + digits + 3

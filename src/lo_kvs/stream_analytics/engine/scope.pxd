# Types of what is compiled; the code stands in keyed.py.

cimport cython

cpdef student_of(metadata)
cpdef named_student(metadata)
cpdef text_of(value)
cpdef bint is_mapping(value)
@cython.locals(known=dict)
cpdef member_of(mapping, name)

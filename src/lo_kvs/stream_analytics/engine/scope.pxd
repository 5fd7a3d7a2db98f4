# C types for the compiled module; the code is in scope.py.

cimport cython

cpdef student_of(metadata)
cpdef named_student(metadata)
cpdef text_of(value)
cpdef bint is_mapping(value)
@cython.locals(known=dict)
cpdef member_of(mapping, name)

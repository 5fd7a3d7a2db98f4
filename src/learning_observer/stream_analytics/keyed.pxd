# Types of what is compiled; the code stands in keyed.py.

cpdef student_of(metadata)

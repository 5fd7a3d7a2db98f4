"""Batching: queued calls leave in groups, and each is retried until its deadline.

Internal. The stores on Redis use it, and none of it knows Redis. It may import `errors`,
`changes` and the other modules of `kvs` that do no I/O.
"""

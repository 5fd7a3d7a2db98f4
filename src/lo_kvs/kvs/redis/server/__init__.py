"""A single Redis server: connections, the dispatchers that use them, readers and writers.

Internal. `client` is what the stores use. It may import `protocol`, `batching` and
`lo_kvs.redis_connection`, and nothing of `cluster`.
"""

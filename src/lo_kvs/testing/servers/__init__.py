"""Real servers for tests: Redis, clusters, replicas, Sentinels and TLS.

Public is what `lo_kvs.testing` offers of them. It imports nothing else of lo_kvs.
"""

"""Fault injection: a TCP proxy that breaks connections on purpose.

Public is `lo_kvs.testing.FaultProxy`. It imports nothing else of lo_kvs.
"""

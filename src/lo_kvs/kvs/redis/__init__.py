"""The stores on Redis: PersistentRedisKVS and EphemeralRedisKVS.

Public are `lo_kvs.PersistentRedisKVS` and `lo_kvs.EphemeralRedisKVS` alone; both are in `store`.
The subfolders, from the lowest: `protocol` (bytes, no I/O), `server` (one server), `cluster`
(many). It may import the contract, `batching` and `lo_kvs.redis_connection`.
"""

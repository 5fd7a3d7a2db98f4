"""FilesystemKVS: a store that keeps one JSON file per key, and what it is built of.

Public is `lo_kvs.FilesystemKVS` alone. It may import the contract (`kvs/store`, `changes`,
`errors`, `codec`), and nothing of Redis.
"""

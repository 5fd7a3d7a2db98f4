"""Ingest: reads event logs and applies their events to a store.

Internal: used by `lo-kvs ingest` and `lo-kvs bench`. `job` is the whole of it, `log_lines` and
`log_kinds` read the files. It may import `stream_analytics`, `kvs` and what is below them.
"""

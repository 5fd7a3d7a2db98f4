"""Checks of the Redis servers that the configured stores use.

Internal: run at startup and by `lo-kvs check`. `probe` asks a server, `rules` judges the answers,
`findings` is what they report. It may import `configuration`, `redis/protocol`,
and `lo_kvs.redis_connection`, but no store.
"""

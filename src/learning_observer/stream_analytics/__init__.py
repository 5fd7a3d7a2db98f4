"""The names of `lo_kvs.stream_analytics` that programs for the Learning Observer import."""

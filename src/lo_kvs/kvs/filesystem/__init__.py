"""FilesystemKVS: a store that keeps one JSON file per key, and what it is built of."""

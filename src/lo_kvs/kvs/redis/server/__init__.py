"""A single Redis server: connections, the dispatchers that use them, readers and writers."""

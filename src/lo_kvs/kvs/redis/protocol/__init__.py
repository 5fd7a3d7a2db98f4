"""The bytes that are exchanged with a Redis server, without I/O: commands, scripts, replies."""

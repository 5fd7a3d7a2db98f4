"""The bytes that are exchanged with a Redis server, without I/O: commands, scripts, replies.

Internal. It imports no connection and no event loop; a round trip is a generator that yields
commands and is sent replies. `packing` has a compiled form, `_packing`.
"""

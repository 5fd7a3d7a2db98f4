"""The Lua scripts of the Redis stores, one operation a file; `kvs.scripts` runs them."""

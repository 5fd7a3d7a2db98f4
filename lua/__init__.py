"""The Lua scripts of the Redis stores, one operation a file, run by `learning_observer.kvs.scripts`."""

"""The stores on Redis: PersistentRedisKVS and EphemeralRedisKVS."""

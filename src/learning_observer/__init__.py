"""A key-value store for event reducers, native to Redis."""

"""Batching: queued calls leave in groups, and each is retried until its deadline."""

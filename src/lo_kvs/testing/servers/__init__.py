"""Real servers for tests: Redis, clusters, replicas, Sentinels and TLS."""

"""Checks of the Redis servers that the configured stores use."""

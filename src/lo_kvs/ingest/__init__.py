"""Ingest: reads event logs and applies their events to a store."""

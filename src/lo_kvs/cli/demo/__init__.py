"""`lo-kvs demo`: a simulated class, from its events to the table of a dashboard."""

from lo_kvs.cli.demo.command import demo

__all__ = ["demo"]

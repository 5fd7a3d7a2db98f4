"""Fault injection: a TCP proxy that breaks connections on purpose."""

"""Measuring: what `make bench` and `lo-kvs bench` share.

    timing    runs of many sessions, contestants that take turns
    report    the lines of a table, with targets, and the same as JSON
    plots     curves as SVG
    machine   where the figures were made
    workload  events for any number of sessions, and what they must come to

Figures of one run compare with each other only; other work on the machine moves them all.
"""

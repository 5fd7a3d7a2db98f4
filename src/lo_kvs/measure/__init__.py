"""Benchmarks: the code that `make bench` and `lo-kvs bench` share.

    timing    runs of many sessions, interleaved contestants
    report    the lines of a table, with targets, and the same as JSON
    plots     curves as SVG
    machine   the machine and versions of a run
    workload  events for any number of sessions, and the expected states

Compare only figures of the same run; other load on the machine changes all of them.
"""

"""Builds what is compiled. Everything else about the package stands in pyproject.toml."""

import multiprocessing
import os

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

# Named in full: a bare path would be named by the packages that lie around it.
PYX = [
    "lo_kvs/kvs/codec/_c.pyx",
    "lo_kvs/kvs/redis/protocol/_words.pyx",
    "lo_kvs/kvs/redis/protocol/_packing.pyx",
    "lo_kvs/stream_analytics/engine/_call.pyx",
]
# Compiled as they are, with the types of the .pxd beside them, and run as they are where
# there is no compiler. Annotations are for people: what is typed stands in the .pxd.
PY = [
    f"lo_kvs/{name}.py"
    for name in (
        "kvs/batching/inbox",
        "stream_analytics/engine/backpressure",
        "stream_analytics/engine/batch",
        "stream_analytics/engine/cache",
        "stream_analytics/engine/deadlines",
        "stream_analytics/engine/engine",
        "stream_analytics/engine/event_queue",
        "stream_analytics/engine/fold",
        "stream_analytics/engine/route",
        "stream_analytics/engine/scope",
        "stream_analytics/engine/session",
        "stream_analytics/engine/state_slot",
        "stream_analytics/engine/wakeups",
        "stream_analytics/pipeline",
    )
]


CORES = os.cpu_count() or 1


def built(paths: list[str], **directives: bool) -> list[Extension]:
    named = [
        Extension(path.rpartition(".")[0].replace("/", "."), [f"src/{path}"]) for path in paths
    ]
    found: list[Extension] = cythonize(
        named,
        language_level=3,
        # Another start method would run this file again in each process.
        nthreads=CORES if multiprocessing.get_start_method() == "fork" else 0,
        # Every index is checked (Cython's default): without, an event takes as long (1.00 times
        # the events per second, the median of 40 pairs of runs with 50 sessions on a stub).
        compiler_directives=directives,
    )
    return found


extensions = [*built(PYX), *built(PY, annotation_typing=False, initializedcheck=False)]
for extension in extensions:
    # Without a compiler the package installs all the same, and runs in pure Python.
    # `optional` is set here because cythonize() drops it; CI makes the extension obligatory.
    extension.optional = os.environ.get("LOKVS_REQUIRE_EXTENSION") != "1"

setup(
    ext_modules=extensions,
    options={"build_ext": {"parallel": CORES}},
    packages=[*find_packages("src"), "lo_kvs.lua"],
)

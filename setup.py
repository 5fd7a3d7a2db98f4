"""Builds what is compiled. Everything else about the package stands in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

# Named in full: a bare path would be named by the packages that lie around it.
PYX = [
    "learning_observer/kvs/codec/_c.pyx",
    "learning_observer/kvs/_words.pyx",
    "learning_observer/kvs/_packing.pyx",
    "learning_observer/stream_analytics/_running.pyx",
]
# Compiled as they are, with the types of the .pxd beside them, and run as they are where
# there is no compiler. Annotations are for people: what is typed stands in the .pxd.
PY = [
    f"learning_observer/{name}.py"
    for name in (
        "kvs/intake",
        "stream_analytics/batch",
        "stream_analytics/cache",
        "stream_analytics/clock",
        "stream_analytics/engine",
        "stream_analytics/event_queue",
        "stream_analytics/fold",
        "stream_analytics/held_state",
        "stream_analytics/keyed",
        "stream_analytics/pipeline",
        "stream_analytics/room",
        "stream_analytics/routes",
        "stream_analytics/session",
        "stream_analytics/wakeups",
    )
]


def built(paths: list[str], **directives: bool) -> list[Extension]:
    named = [
        Extension(path.rpartition(".")[0].replace("/", "."), [f"src/{path}"]) for path in paths
    ]
    found: list[Extension] = cythonize(
        named, language_level=3, compiler_directives={"boundscheck": False, **directives}
    )
    return found


extensions = [*built(PYX), *built(PY, annotation_typing=False, initializedcheck=False)]
for extension in extensions:
    # Without a compiler the package installs all the same, and runs in pure Python.
    # `optional` is set here because cythonize() drops it; CI makes the extension obligatory.
    extension.optional = os.environ.get("LOKVS_REQUIRE_EXTENSION") != "1"

setup(
    ext_modules=extensions,
    packages=[*find_packages("src"), "learning_observer.lua"],
)

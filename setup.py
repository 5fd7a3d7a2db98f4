"""Builds the compiled codec. Everything else about the package stands in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

# Named in full: a bare path would be named by the packages that lie around it.
CODEC = Extension("learning_observer.kvs.codec._c", ["src/learning_observer/kvs/codec/_c.pyx"])

extensions = cythonize([CODEC], language_level=3)
for extension in extensions:
    # Without a compiler the package installs all the same, with the pure codec.
    # `optional` is set here because cythonize() drops it; CI makes the extension obligatory.
    extension.optional = os.environ.get("LOKVS_REQUIRE_EXTENSION") != "1"

setup(
    ext_modules=extensions,
    packages=[*find_packages("src"), "learning_observer.lua"],
)

"""Which codec is used: the compiled one if it is built, the pure one on request."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from lo_kvs.compiled import SWITCHES
from lo_kvs.kvs import codec

PROGRAM = """
import json, logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from lo_kvs.kvs import codec
print(json.dumps([codec.COMPILED, codec.IMPLEMENTATION, type(codec.encode).__name__,
                  codec.encode([1.5]).decode()]))
"""


def is_built() -> bool:
    """Whether a compiled twin for this Python lies in the package, sound or not."""
    folder = Path(codec.__path__[0])
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    return any((folder / f"_c{suffix}").exists() for suffix in suffixes)


def run(**environment: str) -> tuple[list[object], str]:
    """COMPILED, IMPLEMENTATION, the type of encode and [1.5] written; and what was logged."""
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer, done.stderr


def test_compiled_codec_is_present_if_required(twins: dict[str, ModuleType]) -> None:
    must_be = is_built() or "CI" in os.environ or os.environ.get("LOKVS_REQUIRE_EXTENSION") == "1"
    assert not must_be or "compiled" in twins, "build it: python setup.py build_ext --inplace"


def test_the_compiled_twin_is_compiled(twins: dict[str, ModuleType]) -> None:
    for name, twin in twins.items():
        file = str(twin.__file__)
        compiled = file.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
        assert compiled == (name == "compiled"), file


def test_the_choice_by_default(twins: dict[str, ModuleType]) -> None:
    answer, log = run()
    if "compiled" in twins:
        assert answer == [True, "compiled", "builtin_function_or_method", "[1.5]"]
        assert "JSON codec: compiled" in log
    else:
        assert answer == [False, "pure", "function", "[1.5]"]
        assert "JSON codec: pure Python (no module is compiled for this Python)" in log


def test_the_pure_twin_when_it_is_asked_for() -> None:
    answer, log = run(LOKVS_PURE="1")
    assert answer == [False, "pure", "function", "[1.5]"]
    assert "JSON codec: pure Python (LOKVS_PURE=1)" in log


def test_the_public_names() -> None:
    assert {name for name in codec.__all__ if not hasattr(codec, name)} == set()
    assert {True: "compiled", False: "pure"}[codec.COMPILED] == codec.IMPLEMENTATION

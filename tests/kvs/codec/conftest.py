"""Fixtures: tests that use `codec` run on the compiled and the pure version."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

PACKAGE = "lo_kvs.kvs.codec"


def _twins() -> dict[str, ModuleType]:
    twins = {"pure": importlib.import_module(f"{PACKAGE}._py")}
    try:
        twins["compiled"] = importlib.import_module(f"{PACKAGE}._c")
    except ImportError:
        # Whether it may be missing is for test_choice.py to say, once.
        return twins
    return twins


TWINS = _twins()


def pytest_report_header() -> str:
    required = os.environ.get("LOKVS_REQUIRE_EXTENSION") == "1"
    return f"codec: {', '.join(TWINS)}{' (compiled one required)' if required else ''}"


@pytest.fixture(scope="session", params=list(TWINS.values()), ids=list(TWINS))
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """One twin: the module that has encode, encode_state, decode and plain_copy."""
    twin = request.param
    assert isinstance(twin, ModuleType)
    return twin


@pytest.fixture(scope="session")
def twins() -> dict[str, ModuleType]:
    """All twins that can be loaded, by name."""
    return TWINS

"""`import lo_kvs`: every name in `__all__` can be used."""

from __future__ import annotations

import pytest

import lo_kvs


@pytest.mark.parametrize("name", lo_kvs.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(lo_kvs, name)

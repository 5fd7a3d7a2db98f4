"""StoreContract: the contract of every store, as tests that users run on their own stores.

    from lo_kvs.testing import StoreContract

    class TestMyStore(StoreContract):
        reopens = True

        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.folder = tmp_path

        def make_store(self):
            return MyStore(self.folder)

        def raw_get(self, key): ...
        def raw_set(self, key, data): ...

The tests need pytest and nothing else. What differs between stores is declared, in the
attributes and methods of `StoreUnderTest`, and never by a test that is overridden or skipped.
"""

from __future__ import annotations

import pytest

# Before the imports: pytest then shows the values in a failed `assert` of these modules.
pytest.register_assert_rewrite(
    *(
        f"lo_kvs.testing.contract.{part}"
        for part in ("values", "keys", "commits", "writers", "bytes", "life")
    )
)

from lo_kvs.testing.contract.base import StoreUnderTest, same  # noqa: E402
from lo_kvs.testing.contract.bytes import BytesContract  # noqa: E402
from lo_kvs.testing.contract.commits import CommitContract  # noqa: E402
from lo_kvs.testing.contract.keys import KeyContract  # noqa: E402
from lo_kvs.testing.contract.life import LifeContract  # noqa: E402
from lo_kvs.testing.contract.values import ValueContract  # noqa: E402
from lo_kvs.testing.contract.writers import WriterContract  # noqa: E402

__all__ = ["StoreContract", "StoreUnderTest", "same"]


class StoreContract(
    ValueContract, KeyContract, CommitContract, WriterContract, BytesContract, LifeContract
):
    """Every test of the contract. Subclass it, and implement `make_store`."""

"""The base of the contract tests: what a subclass declares about its store."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar

from lo_kvs.kvs import Store

#: Ends a test in which an answer never comes.
HANGS_AFTER_S: Final = 300.0

P = ParamSpec("P")
Tests = TypeVar("Tests", bound="StoreUnderTest")


class StoreUnderTest:
    """How the contract gets at a store, and what is declared of it.

    reopens                 a second store at the same place has what the first one wrote
    clear_needs_everything  clear() raises unless it is called with `everything=True`
    ttl_s                   how many seconds a value lives after it was written; `None`: for good
    updates_per_writer      how long eight writers go on updating one key
    large_bytes             the size of a large value; it must fit through in the store's time-out

    No test demands a speed: a store may be on a slow machine, or in another region.

    Each test has an instance of its own, so what a method keeps on `self` is that test's.
    """

    reopens: ClassVar[bool] = False
    clear_needs_everything: ClassVar[bool] = False
    ttl_s: ClassVar[float | None] = None
    updates_per_writer: ClassVar[int] = 500
    large_bytes: ClassVar[int] = 400_000

    def make_store(self) -> Store:
        """An open store. The first one in a test is empty, further ones are at its place."""
        raise NotImplementedError(f"{type(self).__name__} must implement make_store")

    def raw_get(self, key: str) -> bytes | None:
        """The bytes stored for `key`, got past the store; `None` where there are none."""
        raise NotImplementedError(f"{type(self).__name__} must implement raw_get")

    def raw_set(self, key: str, data: bytes) -> None:
        """Put `data` where the store keeps the value of `key`, past the store."""
        raise NotImplementedError(f"{type(self).__name__} must implement raw_set")

    def raw_ttl_ms(self, key: str) -> int | None:
        """The milliseconds that `key` has left, asked past the store; `None`: for good."""
        return None

    def raw_set_ttl_ms(self, key: str, ttl_ms: int) -> None:
        """Give `key` another TTL, past the store. Nothing happens where there are none."""


def on_store(
    test: Callable[Concatenate[Tests, Store, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[Tests, P], None]:
    """Make a test of a coroutine function: it gets an empty store, which is closed after it."""

    async def on_a_fresh_store(self: Tests, *args: P.args, **kwargs: P.kwargs) -> None:
        async with self.make_store() as store:
            await test(self, store, *args, **kwargs)

    @functools.wraps(test)
    def run(self: Tests, /, *args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(on_a_fresh_store(self, *args, **kwargs))

    # pytest fills in what the signature names: all of it but the store.
    signature = inspect.signature(test)
    rest = [each for name, each in signature.parameters.items() if name != "store"]
    run.__signature__ = signature.replace(parameters=rest, return_annotation=None)  # type: ignore[attr-defined]
    return run


def together(name: str) -> str:
    """A key that can change together with all others that this makes: on a cluster as well,
    where what stands in braces decides about the place of a key.
    """
    return f"{name}{{together}}"


def same(value: object, other: object) -> bool:
    """Whether two JSON values are equal, types and order of keys and NaN and -0.0 included."""
    return repr(value) == repr(other)

"""Operators that stores and routers cannot have, each with the call to make instead.

An operator such as `in` cannot be awaited. Without these, Python would evaluate `in` and `for`
by way of `__getitem__`, which returns a coroutine for every key: neither would ever end.
"""

from __future__ import annotations

import abc
from typing import NoReturn


class NoOperators(abc.ABC):
    """Raises `TypeError` for what works on a dict: `in`, `for`, `store[key] = value`.

    Without a `__len__`, `len` does so by itself; with one, each `if store:` would call it.
    """

    @abc.abstractmethod
    def _instead_of(self, operation: str, call: str) -> str:
        """The error's text. `call` is what to do on a store that is named `store`."""

    def __contains__(self, key: object) -> NoReturn:
        raise TypeError(self._instead_of("in", "await store.exists(key)"))

    def __iter__(self) -> NoReturn:
        raise TypeError(self._instead_of("for", "for key in await store.keys()"))

    def __aiter__(self) -> NoReturn:
        raise TypeError(self._instead_of("async for", "async for key in store.scan()"))

    def __setitem__(self, key: object, value: object) -> None:
        raise TypeError(self._instead_of("[key] = value", "await store.set(key, value)"))

    def __delitem__(self, key: object) -> None:
        raise TypeError(self._instead_of("del", "await store.remove(key)"))

"""Operators that stores and routers do not have; each error names the call to make instead.

An operator such as `in` cannot be awaited. Without these methods Python would evaluate `in` and
`for` with `__getitem__`, which returns a coroutine for every key: neither would ever end.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NoReturn


class NoOperators(abc.ABC):
    """Raises `TypeError` for operators of a dict: `in`, `for`, `len`, `store[key] = value`.

    Type checkers do not see these methods, so that they report the operators as well.
    """

    @abc.abstractmethod
    def _instead_of(self, operation: str, call: str) -> str:
        """The error's text. `call` is what to do on a store that is named `store`."""

    if not TYPE_CHECKING:

        def __bool__(self) -> bool:
            """True, as for any object; without it `if store:` would call `__len__`."""
            return True

        def __contains__(self, key: object) -> NoReturn:
            raise TypeError(self._instead_of("in", "await store.exists(key)"))

        def __iter__(self) -> NoReturn:
            raise TypeError(self._instead_of("for", "for key in await store.keys()"))

        def __aiter__(self) -> NoReturn:
            raise TypeError(self._instead_of("async for", "async for key in store.scan()"))

        def __len__(self) -> NoReturn:
            raise TypeError(self._instead_of("len", "len(await store.keys())"))

        def __setitem__(self, key: object, value: object) -> None:
            raise TypeError(self._instead_of("[key] = value", "await store.set(key, value)"))

        def __delitem__(self, key: object) -> None:
            raise TypeError(self._instead_of("del", "await store.remove(key)"))

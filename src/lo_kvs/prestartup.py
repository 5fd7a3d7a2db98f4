"""What must hold before the system starts, and what is set up when it does.

Modules register checks and initializers when they are imported;
`startup_checks_and_init()` then runs them all, once the settings are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lo_kvs import host

_Hook = TypeVar("_Hook", bound=Callable[[], object])

_checks: list[Callable[[], object]] = []
_initializers: list[Callable[[], object]] = []


if TYPE_CHECKING or host.prestartup() is None:

    class StartupCheck(Exception):
        """A fault that keeps the system from starting; its text says what to change."""

    def register_startup_check(check: _Hook) -> _Hook:
        """Run `check` at startup; it raises `StartupCheck` if something is wrong."""
        if check not in _checks:
            _checks.append(check)
        return check

else:
    StartupCheck = host.prestartup().StartupCheck
    register_startup_check = host.prestartup().register_startup_check


def register_init_function(initializer: _Hook) -> _Hook:
    """Run `initializer` at startup, after every check has passed."""
    if initializer not in _initializers:
        _initializers.append(initializer)
    return initializer


def startup_checks_and_init() -> None:
    """Run every registered check, then every initializer, in the order of registration.

    All checks run even where one fails, so that one start shows every fault.
    Raises `StartupCheck` with the faults of all of them; no initializer has run then.
    Anything else that a check raises is a defect of the check, and ends the start at once.
    """
    faults: list[StartupCheck] = []
    for check in _checks:
        try:
            check()
        except StartupCheck as fault:
            faults.append(fault)
        except Exception as error:
            for found in faults:
                error.add_note(f"A startup check before this one found: {found}")
            raise
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise StartupCheck("\n".join(str(fault) for fault in faults)) from faults[0]
    for initializer in _initializers:
        initializer()

"""Limits of the engine: the `reducers` block of the settings.

    reducers:
      cache_bytes: 67108864     memory for cached states
      waiting_events: 100000    events that may be queued before `process` makes callers wait
      reducer_timeout: 30       seconds that a reducer with an `await` may take for one event
      allowed_sources: []       reducers that browsers may read; see `keys_from_json`

The first two apply to each event loop and store.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from lo_kvs import host
from lo_kvs.prestartup import StartupCheck, register_startup_check
from lo_kvs.settings.shown import name_shown, value_shown
from lo_kvs.stream_analytics.keys_from_json import check_allowed_sources

#: The time limit of a reducer, in seconds.
TIMEOUT_MIN_S: Final = 0.001
TIMEOUT_MAX_S: Final = 86_400


@dataclass(frozen=True)
class Limits:
    """The limits of an engine.

    cache_bytes      approximate memory for cached states, those without queued events; with 0,
                     each event reads its state
    waiting_events   when this many events are queued, callers wait before they submit another:
                     a slow store slows its callers instead of filling the memory. The events of
                     one state count up to a tenth of the limit
    reducer_timeout  seconds that a reducer with an `await` may take for one event, if it has no
                     `timeout` of its own; `None` for no limit
    """

    cache_bytes: int = 64 * 1024 * 1024
    waiting_events: int = 100_000
    reducer_timeout: float | None = None

    @classmethod
    def from_settings(cls) -> Limits:
        """The limits in the loaded settings. Raises `StartupCheck` that lists every problem."""
        block = host.settings().get("reducers") or {}
        if not isinstance(block, Mapping):
            raise StartupCheck(f"reducers: expected a mapping, got {type(block).__name__}")
        faults: list[str] = []
        for option, value in block.items():
            if option not in _CHECKS:
                near = difflib.get_close_matches(str(option), _CHECKS, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_CHECKS)}"
                faults.append(f"reducers: unknown option {name_shown(option)}; {hint}")
                continue
            fault = _CHECKS[option](value)
            if fault is not None:
                faults.append(f"reducers.{option}: {fault}")
        if faults:
            raise StartupCheck("\n".join(faults))
        return cls(**{name: block[name] for name in asdict(cls()) if name in block})


def timeout_fault(value: object) -> str | None:
    """The problem with a time limit for a reducer, or `None`. `None` as the value: no limit."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not TIMEOUT_MIN_S <= value <= TIMEOUT_MAX_S:  # type: ignore[operator]
        return (
            f"expected seconds between {TIMEOUT_MIN_S:g} and {TIMEOUT_MAX_S:g}, "
            f"got {value_shown(value)}"
        )
    return None


def _whole_number(least: int) -> Callable[[object], str | None]:
    def fault(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            return f"expected a whole number, {least} or more, got {value_shown(value)}"
        return None

    return fault


#: For each option of the block: a function that returns the problem with a value, or `None`.
_CHECKS: Final[dict[str, Callable[[object], str | None]]] = {
    "cache_bytes": _whole_number(0),
    "waiting_events": _whole_number(1),
    "reducer_timeout": timeout_fault,
    "allowed_sources": check_allowed_sources,
}


def limits_startup_check() -> None:
    """Raises `StartupCheck` if the `reducers` block is invalid."""
    Limits.from_settings()


# Called, not used as a decorator: in some Learning Observer versions it returns nothing.
register_startup_check(limits_startup_check)

"""How much the reducers of one process may hold: the `reducers` block of the settings.

    reducers:
      cache_bytes: 67108864     memory for states that no event waits for
      waiting_events: 100000    events that may wait before `process` makes callers wait

Both count for each event loop and store.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from learning_observer import settings
from learning_observer.prestartup import StartupCheck, register_startup_check
from learning_observer.settings_shown import name_shown, value_shown


@dataclass(frozen=True)
class Limits:
    """The bounds on an engine.

    cache_bytes     states that no event waits for are kept up to this much memory, about;
                    0 keeps none, and each event reads its state
    waiting_events  when so many events wait, whoever brings another waits first: a store
                    that is slow slows its callers down instead of filling the memory
    """

    cache_bytes: int = 64 * 1024 * 1024
    waiting_events: int = 100_000

    @classmethod
    def from_settings(cls) -> Limits:
        """What the loaded settings say. Raises `StartupCheck` with every fault."""
        block = settings.settings.get("reducers") or {}
        if not isinstance(block, Mapping):
            raise StartupCheck(f"reducers: expected a mapping, got {type(block).__name__}")
        known = asdict(cls())
        faults: list[str] = []
        for option, value in block.items():
            least = 0 if option == "cache_bytes" else 1
            if option not in known:
                near = difflib.get_close_matches(str(option), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                faults.append(f"reducers: unknown option {name_shown(option)}; {hint}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < least:
                faults.append(
                    f"reducers.{option}: expected a whole number from {least}, "
                    f"got {value_shown(value)}"
                )
        if faults:
            raise StartupCheck("\n".join(faults))
        return cls(**block)


def limits_startup_check() -> None:
    """Raises `StartupCheck` where the `reducers` block cannot be used."""
    Limits.from_settings()


# Called, not used as a decorator: some trees' functions of this name return nothing.
register_startup_check(limits_startup_check)

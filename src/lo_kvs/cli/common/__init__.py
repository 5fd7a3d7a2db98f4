"""What all commands share: their settings and stores, and how they end."""

from lo_kvs.cli.common.ending import (
    DONE,
    PIPE_CLOSED,
    PROBLEMS,
    STORE,
    STRICT,
    USAGE,
    Failure,
    counted,
    run,
    say,
    show,
    write,
)
from lo_kvs.cli.common.settings import (
    DEFAULT_PATH,
    Config,
    Opened,
    Overlays,
    Settings,
    StoreName,
    opened,
)
from lo_kvs.cli.interrupts import INTERRUPTED

__all__ = [
    "DEFAULT_PATH",
    "DONE",
    "INTERRUPTED",
    "PIPE_CLOSED",
    "PROBLEMS",
    "STORE",
    "STRICT",
    "USAGE",
    "Config",
    "Failure",
    "Opened",
    "Overlays",
    "Settings",
    "StoreName",
    "counted",
    "opened",
    "run",
    "say",
    "show",
    "write",
]

"""The settings of a command, and the stores that it opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lo_kvs.cli.common.ending import USAGE, Failure, library_warnings

if TYPE_CHECKING:
    from lo_kvs.kvs import Store

CONFIG_FILE: Final = "creds.yaml"
DEFAULT_PATH: Final = ".lo_kvs"

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Settings with a `kvs` section (YAML).  [default: ./creds.yaml, else a "
        "filesystem store ./.lo_kvs]",
    ),
]
Overlays = Annotated[
    list[Path] | None,
    typer.Option(
        "--overlay",
        metavar="FILE",
        help="Settings that override --config (.yaml, .pmss); repeatable, the first one wins.",
    ),
]
StoreName = Annotated[
    str, typer.Option("--store", "-s", metavar="NAME", help="Name of the store to use.")
]


@dataclass(frozen=True)
class Settings:
    """The source of a command's settings."""

    config: Path | None = None
    overlays: Sequence[Path] = ()
    # Whether to use a creds.yaml in the current directory if no file is named.
    find: bool = True
    # The settings if there is no file: the built-in default.
    default: Mapping[str, Any] = field(
        default_factory=lambda: {"kvs": {"default": {"type": "filesystem", "path": DEFAULT_PATH}}}
    )

    @property
    def source(self) -> Path | None:
        """The settings file, or `None` for the built-in default."""
        if self.config is None and self.find and Path(CONFIG_FILE).exists():
            return Path(CONFIG_FILE)
        return self.config

    def load(self) -> None:
        """Load the settings, without configuring stores. Raises `StartupCheck`."""
        from lo_kvs.settings import load_settings

        load_settings(self.source or self.default, self.overlays)

    def start(self, *stores: str) -> None:
        """Load the settings and configure `KVS`. Raises `StartupCheck` that lists every error.

        Warnings about servers are printed if they concern `stores`, by default all.
        """
        self.load()
        self.start_loaded(*stores)

    def start_loaded(self, *stores: str) -> None:
        """Configure `KVS` from the settings that `load` loaded. Raises `StartupCheck`."""
        library_warnings.stores = frozenset(stores)
        import lo_kvs.kvs  # noqa: F401 - registers its startup check
        from lo_kvs.prestartup import startup_checks_and_init

        startup_checks_and_init()

    def check_there(self) -> None:
        """Raise `Failure` if the built-in default applies and its directory does not exist."""
        if self.source is None and not self.overlays and not Path(DEFAULT_PATH).exists():
            raise Failure(
                f"neither {CONFIG_FILE} nor a store {DEFAULT_PATH} exists in this directory: "
                "name the settings with --config, or create a store with `lo-kvs demo`",
                USAGE,
            )


@dataclass(frozen=True)
class Opened:
    """A configured store with its name, its type and the place of its data, for messages."""

    store: Store
    name: str
    type: str
    where: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type}, {self.where})"


def opened(name: str) -> Opened:
    """The store `name` of the configured router. Raises `Failure` if there is none."""
    from lo_kvs import host
    from lo_kvs.kvs import KVS
    from lo_kvs.kvs.configuration import read_block
    from lo_kvs.redis_connection import named_settings

    entries, _ = read_block(host.settings().get("kvs"), is_reserved=lambda _: False)
    for entry in entries:
        if entry.name == name:
            break
    else:
        raise Failure(f"no store named {name!r}; configured: {', '.join(KVS.names())}", USAGE)
    where = "in this process only"
    if entry.type == "filesystem":
        where = str(entry.options["path"])
    elif entry.type != "stub":
        prefix = entry.options.get("prefix")
        where = named_settings(entry.options.get("connection")).place + (
            f", prefix {prefix}" if prefix else ""
        )
    return Opened(getattr(KVS, name)(), name, entry.type, where)

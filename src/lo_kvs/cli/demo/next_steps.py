"""Where the data of the demo is, and what to do with it: commands that work as printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lo_kvs.cli.common import DEFAULT_PATH, Opened, Settings
from lo_kvs.cli.demo.simulated import Class

SETTINGS_FILE: Final = "demo.yaml"
REDIS_FILE: Final = "redis-demo.yaml"
REDIS_SETTINGS: Final = (
    '{kvs: {default: {type: redis, prefix: "demo:"}}, '
    'redis_connection: {redis_url: "redis://localhost:6379/0"}}'
)


class NextSteps:
    """What to do after a demo of `simulated` in the store `target`.

    config, path  what the demo was called with
    """

    def __init__(
        self, simulated: Class, target: Opened, config: Path | None, path: Path | None
    ) -> None:
        self._simulated = simulated
        self._target = target
        self._config = config
        self._path = path
        self._program = "lo-kvs" if shutil.which("lo-kvs") else shlex.quote(sys.argv[0])

    def where(self) -> str:
        """Where the data is."""
        target = self._target
        if target.type == "stub":
            return "The data was in the memory of this process."
        if target.type != "filesystem":
            return f"The data is in {target}."
        folder = Path(target.where)
        files = [file for file in folder.glob("*.json") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        return (
            f"The data is in {folder.absolute()}: {len(files):,} JSON files, {size / 1024:,.0f} KB."
        )

    def look(self, document: tuple[str, str] | None) -> Iterator[str]:
        """How to look at the data, such as the text of `document` (a student and its id)."""
        if self._target.type == "stub":
            return
        options = self._named()
        yield "Try next:"
        # Without settings the other commands use the store .lo_kvs here.
        if self._config is None and (
            Path(self._target.where) != Path(DEFAULT_PATH) or Settings().source is not None
        ):
            yield self._settings_file()
            options = f" --config {SETTINGS_FILE}"
        yield f"  {self._program} keys External,lo_kvs.reducers.text{options}"
        if document is not None:
            yield f"  {self._program} get {shlex.quote(_text_key(*document))}{options}"
        yield f"  {self._program} dump class.json{options}"

    def on_redis(self) -> Iterator[str]:
        """How to do the same on Redis."""
        if self._config is None:
            yield "\nThe same on Redis (put the address of your server into the first line):"
            yield f"  echo {shlex.quote(REDIS_SETTINGS)} > {REDIS_FILE}"
            yield f"  {self._program} demo {self._simulated.options} --config {REDIS_FILE}"

    def go_on(self, applied: int) -> Iterator[str]:
        """How to apply the other events after the first `applied`, and how to start again."""
        simulated, options = self._simulated, self._named()
        if self._target.type != "stub":
            yield f"Apply the other {simulated.events - applied:,} events:"
            if self._config is None:
                yield self._settings_file()
                options = f" --config {SETTINGS_FILE}"
            yield (
                f"  {self._program} simulate - {simulated.options} | tail -n +{applied + 1} | "
                f"{self._program} ingest --reducers lo_kvs.reducers{options}"
            )
        yield "Start again from the first event:"
        yield f"  {self.again()}"

    def again(self) -> str:
        """The command that was called, with all that it depends on."""
        named = f" --path {shlex.quote(str(self._path))}" if self._path is not None else ""
        return f"{self._program} demo {self._simulated.options}{named}{self._named()}"

    def _settings_file(self) -> str:
        """The command that writes the settings of the demo, which does not flush each file."""
        path = self._target.where.replace("'", "''")
        settings = f"{{kvs: {{default: {{type: filesystem, path: '{path}', fsync: false}}}}}}"
        return f"  echo {shlex.quote(settings)} > {SETTINGS_FILE}"

    def _named(self) -> str:
        if self._config is None:
            return ""
        store = self._target.name
        named = "" if store == "default" else f" --store {shlex.quote(store)}"
        return f" --config {shlex.quote(str(self._config))}{named}"


def _text_key(student: str, document: str) -> str:
    from lo_kvs.reducers import document_text
    from lo_kvs.stream_analytics.helpers import EventField, KeyField, KeyStateType, make_key

    fields: dict[Any, object] = {KeyField.STUDENT: student, EventField("doc_id"): document}
    return make_key(document_text, fields, KeyStateType.EXTERNAL)

"""Reconstructs the text of a document from the commands that Google Docs saves.

Commands count in UTF-16 units, as browsers do: an emoji is two. Positions start at 1.

    {"ty": "is", "s": "text", "ibi": 5}   insert `s` in front of what stands at 5
    {"ty": "ds", "si": 5, "ei": 8}        delete from 5 to 8, both included
    {"ty": "mlti", "mts": [...]}          several commands as one
    {"ty": "rplc", "snapshot": [...]}     empty the document, then these commands

Every other command (styles, lists, spell checking) leaves the text as it is.

A log may start in the middle of a document, lack a save, or contain invalid commands. So
positions outside the document are moved to its nearest end, invalid commands are skipped, and
both are counted in `bad_commands`: 0 means that the text is exactly the document's.
"""

from __future__ import annotations

from typing import Any

from lo_kvs.reducers.events import BY_DOCUMENT, Event, Reduced, State, saved_commands
from lo_kvs.stream_analytics.helpers import kvs_pipeline

TEXT_MAX = 1_050_000  # characters; Google Docs takes no more than 1.02 million

TEXT_COMMANDS = ("is", "ds", "mlti", "rplc")

DOCUMENT_TEXT: State = {"text": "", "bad_commands": 0}


@kvs_pipeline(null_state=DOCUMENT_TEXT, scope=BY_DOCUMENT)
async def document_text(event: Event, state: State) -> Reduced:
    """The text that a student sees in a document.

    Internal and External: `{"text": "Once upon", "bad_commands": 0}`. Saves that change no
    text return `False, False`, so nothing is written. An insertion that would make the text
    longer than `TEXT_MAX` is skipped as a bad command, and half an emoji becomes U+FFFD.
    """
    commands = list(saved_commands(event))
    if not commands:
        return False, False
    document = Document(state["text"])
    document.apply(commands)
    text, bad = document.finish()
    if text == state["text"] and not bad:
        return False, False
    state["text"] = text
    state["bad_commands"] += bad
    return state, state


class Document:
    """A text that takes commands, counted in UTF-16 units.

    It stays text as long as every character is one unit, since cutting text is the quickest.
    With the first longer one it becomes UTF-16, so that no position has to be converted.
    """

    def __init__(self, text: str) -> None:
        self.bad_commands = 0
        self._text = text
        wide = _wide(text)
        self._units = None if wide is None else bytearray(wide)

    def __len__(self) -> int:
        return len(self._text) if self._units is None else len(self._units) // 2

    def apply(self, commands: list[Any]) -> None:
        """Execute `commands` one after another, nested ones in their place."""
        waiting = commands[::-1]  # a stack of our own: commands may be nested to any depth
        while waiting:
            match waiting.pop():
                case {"ty": "is", "s": str(text), "ibi": int(position)}:
                    self._insert(text, position - 1)
                case {"ty": "ds", "si": int(first), "ei": int(last)}:
                    self._delete(first - 1, last)
                case {"ty": "mlti", "mts": list(inner)}:
                    waiting.extend(reversed(inner))
                case {"ty": "rplc", "snapshot": list(inner)}:
                    self._text, self._units = "", None
                    waiting.extend(reversed(inner))
                case {"ty": str(kind)} if kind not in TEXT_COMMANDS:
                    pass
                case _:
                    self.bad_commands += 1

    def finish(self) -> tuple[str, int]:
        """The text, free of halves of characters, and the number of bad commands."""
        if self._units is None:
            return self._text, self.bad_commands
        try:
            return self._units.decode("utf-16-le"), self.bad_commands
        except UnicodeDecodeError:
            return self._units.decode("utf-16-le", "replace"), self.bad_commands + 1

    def _insert(self, text: str, at: int) -> None:
        length = len(self)
        within = min(max(at, 0), length)
        self.bad_commands += within != at
        if length + len(text) > TEXT_MAX:
            self.bad_commands += within == at  # once for a command that is wrong twice
        else:
            self._splice(within, within, text)

    def _delete(self, start: int, end: int) -> None:
        length = len(self)
        first, last = max(start, 0), min(end, length)
        self.bad_commands += first != start or last != end or start >= end
        if first < last:
            self._splice(first, last, "")

    def _splice(self, start: int, end: int, text: str) -> None:
        wide = _wide(text)
        if self._units is None and wide is None:
            self._text = self._text[:start] + text + self._text[end:]
            return
        if self._units is None:
            self._units = bytearray(self._text.encode("utf-16-le"))
        self._units[2 * start : 2 * end] = text.encode("utf-16-le") if wide is None else wide


def _wide(text: str) -> bytes | None:
    """`text` in UTF-16, or `None` where each of its characters is exactly one unit."""
    if text.isascii():  # known without looking at the text
        return None
    try:
        units = text.encode("utf-16-le")
    except UnicodeEncodeError:  # half a character: the other half may come with the next command
        return text.encode("utf-16-le", "surrogatepass")
    return None if len(units) == 2 * len(text) else units

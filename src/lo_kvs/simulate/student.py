"""One simulated student: the next action, and the documents that it changes."""

from __future__ import annotations

from random import Random
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]
Command: TypeAlias = dict[str, Any]

SOURCE = "org.mitros.writing_analytics"

# The last words go beyond ASCII, beyond Latin-1 and, an emoji, beyond 16 bits.
VOCABULARY = (
    "the a of and to in it was that we they she he with for but not when then because so "
    "river school city winter morning window teacher people story letter question reason "
    "small old bright quiet strange every never often walked found said thought remembered "
    "wrote asked however important believe different caf\u00e9 na\u00efve Z\u00fcrich "
    "don\u2019t \u201cmaybe\u201d \u96ea \U0001f642"
)
WORDS = VOCABULARY.split()
ENDINGS = (" ", " ", " ", " ", " ", " ", ", ", ". ", ". ", ".\n")


class Paper:
    """A document before a student: its text and the cursor in it.

    The text is a list of UTF-16 units. A character of two units has an empty text behind it,
    so that places in the list are the positions that commands count in.
    """

    def __init__(self, doc_id: str) -> None:
        self.doc_id = doc_id
        self.units: list[str] = []
        self.cursor = 0
        self.saved = False

    def text(self) -> str:
        return "".join(self.units)

    def insert(self, text: str) -> Command:
        command = {"ibi": self.cursor + 1, "s": text, "ty": "is"}
        units = [unit for char in text for unit in ((char, "") if char > "\uffff" else (char,))]
        self.units[self.cursor : self.cursor] = units
        self.cursor += len(units)
        return command

    def delete(self, count: int) -> Command:
        """Delete `count` units in front of the cursor, of which there must be one."""
        end, start = self.cursor, max(self.cursor - count, 0)
        start -= self.units[start] == ""
        del self.units[start:end]
        self.cursor = start
        return {"ei": end, "si": start + 1, "ty": "ds"}

    def move(self, to: int) -> None:
        self.cursor = to + (to < len(self.units) and self.units[to] == "")


class Student:
    """A student at a machine: what is done next, and when."""

    def __init__(
        self, index: int, random: Random, at_ms: int, papers: list[Paper], length: int
    ) -> None:
        self.at_ms = at_ms
        self.papers = papers
        self.safe_user_id = f"sim-student-{index:03d}"
        self._user_id = f"student-{index:03d}"
        self._random = random.random
        self._length = length
        self._paper = papers[0]
        self._in_mind = ""  # the rest of the words that are being typed
        self._opening = ["metadata_finished", "test_framework_fake_identity"]

    def next_event(self) -> Event:
        """What the server receives at `at_ms`, which moves on to the event after it."""
        now_ms = self.at_ms
        self.at_ms += 90 + int(self._random() * 250)
        if self._opening:
            kind = self._opening.pop()
            client: Event = {"auth": self._auth(), "event": kind, "origin": "simulated_class"}
            client["source"] = SOURCE
            if kind == "test_framework_fake_identity":
                client["user_id"] = self._user_id
        else:
            bundles = [{"commands": commands} for commands in self._save()]
            self._paper.saved = True
            client = {
                "auth": self._auth(),
                "bundles": bundles,
                "doc_id": self._paper.doc_id,
                "event": "google_docs_save",
                "origin": "simulated_class",
                "source": SOURCE,
                "timestamp": now_ms - 20 - int(self._random() * 60),
            }
            self._pause()
        return {"client": client, "metadata": self._metadata(), "server": _received(now_ms)}

    def _save(self) -> list[list[Command]]:
        """Do something, and give the commands of each bundle that the browser sends of it."""
        paper, done = self._paper, self._random()
        if len(paper.units) >= self._length:
            paper.move(len(paper.units))
            return [[paper.delete(self._length // 3)]]
        if done < 0.006:
            self._turn_to_another()
        elif done < 0.02:
            paper.move(self._below(len(paper.units) + 1))
        elif done < 0.05:
            paper.move(len(paper.units))
        elif done < 0.17 and paper.cursor:
            return [[self._erase(paper, done)]]
        elif done < 0.18 and paper.units:
            style = {"ei": len(paper.units), "si": 1, "sm": {"ts_bd": True}, "st": "text"}
            return [[{**style, "ty": "as"}]]
        return self._type()

    def _erase(self, paper: Paper, done: float) -> Command:
        if done < 0.15:  # the last few characters
            return paper.delete(1 + self._below(6))
        if done < 0.16:  # something longer, that was selected
            return paper.delete(5 + self._below(60))
        corrected = [paper.delete(1 + self._below(12)), paper.insert(self._words(1))]
        return {"mts": corrected, "ty": "mlti"}

    def _type(self) -> list[list[Command]]:
        speed = self._random()
        count = 1 if speed < 0.7 else 2 + self._below(4 if speed < 0.95 else 12)
        typed = self._words(count)
        self.at_ms += 100 * count
        if speed < 0.9:
            return [[self._paper.insert(typed)]]
        first, second = self._paper.insert(typed[:1]), self._paper.insert(typed[1:])
        return [[first, second]] if speed < 0.97 else [[first], [second]]

    def _words(self, count: int) -> str:
        while len(self._in_mind) < count:
            word = WORDS[self._below(len(WORDS))] + ENDINGS[self._below(len(ENDINGS))]
            self._in_mind += word
        typed, self._in_mind = self._in_mind[:count], self._in_mind[count:]
        return typed

    def _turn_to_another(self) -> None:
        self._paper = self.papers[self._below(len(self.papers))]
        self._paper.move(len(self._paper.units))

    def _pause(self) -> None:
        pause = self._random()
        if pause < 0.002:  # away: two to twenty minutes
            self.at_ms += 120_000 + self._below(1_080_000)
        elif pause < 0.03:  # thinking
            self.at_ms += 2_000 + self._below(18_000)

    def _below(self, limit: int) -> int:
        return int(self._random() * limit)

    def _auth(self) -> dict[str, str]:
        return {
            "providence": "sim",
            "safe_user_id": self.safe_user_id,
            "sec": "unauthenticated",
            "user_id": self._user_id,
        }

    def _metadata(self) -> dict[str, Any]:
        return {
            "auth": self._auth(),
            "event": "test_framework_fake_identity",
            "origin": "simulated_class",
            "source": SOURCE,
            "user_id": self._user_id,
        }


def _received(at_ms: int) -> dict[str, Any]:
    return {
        "agent": "simulated",
        "executable": "simulate",
        "ip": "",
        "origin": "",
        "time": at_ms / 1000,
    }

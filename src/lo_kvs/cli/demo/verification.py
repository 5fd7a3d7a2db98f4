"""Whether the store holds what was sent: every event once, every text as it was typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lo_kvs.cli.common import counted
from lo_kvs.cli.demo.rows import event_counts, texts_of

if TYPE_CHECKING:
    from lo_kvs.cli.demo.simulated import Sent
    from lo_kvs.kvs import Store

FAULTS_SHOWN_MAX: Final = 5


class Verification:
    """What the store holds, compared with what was sent.

    sent     what was sent
    counted  the events that the store counts
    faults   a sentence for each student or document that differs
    """

    def __init__(
        self, sent: Sent, counts: dict[str, int], texts: dict[tuple[str, str], str | None]
    ) -> None:
        self.sent = sent
        self.counted = sum(counts.values())
        self.faults = [
            *(
                _events_fault(student, number, counts[student])
                for student, number in sent.counts.items()
                if counts[student] != number
            ),
            *(
                f"{student}: the text of {document} is not what was typed"
                for (student, document), text in sent.texts.items()
                if texts[student, document] != text
            ),
        ]

    def lines(self) -> Iterator[str]:
        """The result, for people."""
        sent = self.sent.counts.total()
        if self.faults:
            yield f"NOT as sent: the store counts {self.counted:,} of {counted(sent, 'event')}."
            yield from (f"  {fault}" for fault in self.faults[:FAULTS_SHOWN_MAX])
            if len(self.faults) > FAULTS_SHOWN_MAX:
                yield f"  ... and {len(self.faults) - FAULTS_SHOWN_MAX:,} more"
            return
        yield (
            f"Verified in the store: {self.counted:,} of {counted(sent, 'event')} counted, "
            "none lost, none doubled."
        )
        if self.sent.texts:
            yield f"{counted(len(self.sent.texts), 'text')} compared: each is as it was typed."


async def verify(store: Store, sent: Sent) -> Verification:
    """Read the states of every student that has sent something, and compare."""
    counts = await event_counts(store, list(sent.counts))
    return Verification(sent, counts, await texts_of(store, list(sent.texts)))


def _events_fault(student: str, sent: int, found: int) -> str:
    differ = f"{sent - found:,} lost" if found < sent else f"{found - sent:,} too many"
    return f"{student}: {sent:,} events sent, {found:,} counted ({differ})"

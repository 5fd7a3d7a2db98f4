"""Deadlines: how long one call is retried, counted from its start, however many steps it has.

A call with one step gets its deadline from the settings. A call with several steps, and a call
that waited in a queue, gets the time that is left. Calls can share a group only if their
deadlines are close. A call of many chunks may take as long as the work needs; only the time of
failed attempts is limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Final

from lo_kvs.kvs.errors import TimedOut

#: A call whose deadline passed while it was queued is still retried for at least this long,
RETRY_FLOOR_MIN_S: Final = 0.25
#: and for at most this long, however slow the server is.
RETRY_FLOOR_MAX_S: Final = 1.0
#: Deadlines that differ by less than this count as equal.
AGREE_S: Final = 0.1
#: A call that started less than this long ago has the default deadline, so it fits any group.
JUST_MADE_S: Final = 0.05
#: A step that takes this long counts towards the deadline, whatever its answer is.
SLOW_S: Final = 0.1


class Deadline:
    """The time until which the steps of one call are retried, all of them together.

    for_s  how many seconds a call is retried; `None`: the store never waits
    since  when the call started, in the event loop's time; default: now

    until  when the call fails; `None`: never
    """

    __slots__ = ("_clock", "_for_s", "_since", "_step", "until")

    def __init__(self, for_s: float | None, since: float | None = None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._for_s = for_s
        self._step = self._clock()
        self._begin(self._step if since is None else since)

    def for_step(self) -> float | None:
        """The deadline of the step that starts now. `None` if the call has just started: the
        default from the settings.
        """
        self._step = self._clock()
        return None if self._step - self._since < JUST_MADE_S else self.until

    def conflict(self) -> None:
        """The step ended in a conflict. If the answer came quickly, restart the deadline: the
        store is available, only another writer was faster.

        Otherwise a call that keeps losing would get a deadline of its own, leave in a group by
        itself, and lose even more often.
        """
        now = self._clock()
        if now - self._step < SLOW_S:
            self._begin(now)

    def _begin(self, since: float) -> None:
        self._since = since
        self.until = None if self._for_s is None else since + self._for_s


class RetryFloor:
    """The minimum time a call is retried, whatever its deadline: twice the usual response time.

    A fixed quarter of a second would be too short for a server that is 300 ms away.

    seconds  the minimum
    """

    __slots__ = ("_answer_s", "seconds")

    def __init__(self) -> None:
        self.seconds = RETRY_FLOOR_MIN_S
        self._answer_s = math.inf

    def record(self, answer_s: float) -> None:
        """Record a response time. A fast response counts fully, a slow one only a little."""
        usual = self._answer_s
        self._answer_s = answer_s if answer_s < usual else usual + (answer_s - usual) / 8
        self.seconds = min(max(RETRY_FLOOR_MIN_S, 2 * self._answer_s), RETRY_FLOOR_MAX_S)


class RetryBudget:
    """Limits the total time of failed attempts over all steps of one call.

    for_s  the limit in seconds; `None`: the store never waits
    """

    __slots__ = ("_clock", "_for_s", "_spent_s")

    def __init__(self, for_s: float | None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._for_s = for_s
        self._spent_s = 0.0

    @contextlib.contextmanager
    def step(self, failed_attempts: Callable[[], int]) -> Iterator[float | None]:
        """Run one step in this context; gives its deadline (`None`: as the settings say).

        failed_attempts  returns the number of failed attempts so far. If it grows during the
                         step, the time of the step counts

        Raises `TimedOut` if no time is left.
        """
        start, before = self._clock(), failed_attempts()
        if self._for_s is None or not self._spent_s:
            deadline = None
        elif self._spent_s < self._for_s:
            deadline = start + max(self._for_s - self._spent_s, RETRY_FLOOR_MIN_S)
        else:
            raise TimedOut(
                f"gave up after {self._spent_s:.3g} s of failed attempts in one call; its "
                "remaining steps were not started. Check whether the store can be reached"
            )
        yield deadline
        if failed_attempts() != before:  # a step that fails ends the call
            self._spent_s += self._clock() - start


def agree(soonest: float, latest: float, now: float) -> bool:
    """Whether deadlines this far apart may be replaced by the soonest one.

    No call loses more than 0.1 s or 10 % of its remaining time, whichever is longer. With a fixed
    0.1 s, a slow server would get many small groups.
    """
    return latest - soonest <= max(AGREE_S, (soonest - now) / 10)

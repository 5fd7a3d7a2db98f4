"""How long a call is tried: from when it was made, whatever it consists of.

A call of one step has its deadline from the settings. A call of several steps, and one that
has waited behind others, has what is left of that; and what leaves together must agree in it.
A call of ever so many parts takes as long as there is much to do; what may not add up in it
is the time in which the store was tried in vain.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Final

from lo_kvs.kvs.errors import TimedOut

#: What has waited behind others until its time is up is tried for so long all the same,
TURN_MIN_S: Final = 0.25
#: and for so long at most, however far away the server is.
TURN_MAX_S: Final = 1.0
#: Deadlines that are no further apart count as one.
AGREE_S: Final = 0.1
#: A call that was made so shortly ago has the deadline that any call has: it can leave with all.
JUST_MADE_S: Final = 0.05
#: A step that takes so long takes from the time of those after it, whatever its answer is.
SLOW_S: Final = 0.1


class Deadline:
    """Until when the steps of one call are tried, all of them together.

    for_s  how many seconds a call is tried for; `None`: by a store that waits for nobody
    since  when this one was made, in the event loop's time; default: now

    until  when it is given up, if ever
    """

    __slots__ = ("_clock", "_for_s", "_since", "_step", "until")

    def __init__(self, for_s: float | None, since: float | None = None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._for_s = for_s
        self._step = self._clock()
        self._begin(self._step if since is None else since)

    def deadline(self) -> float | None:
        """That of the step that is made now. `None` while the call was just made: as the
        settings say.
        """
        self._step = self._clock()
        return None if self._step - self._since < JUST_MADE_S else self.until

    def conflict(self) -> None:
        """The step met a conflict. Where its answer came at once the call has all its time again:
        it is others who are faster, the store is there.

        Were it not so, a call that lost for a while would have a deadline of its own, leave by
        itself, and lose ever more.
        """
        now = self._clock()
        if now - self._step < SLOW_S:
            self._begin(now)

    def _begin(self, since: float) -> None:
        self._since = since
        self.until = None if self._for_s is None else since + self._for_s


class Turn:
    """How long a call is tried at least, whatever its deadline: twice as long as an answer takes.

    A quarter of a second is no time where the server is 300 ms away, and answers.

    s  the seconds
    """

    __slots__ = ("_answer_s", "s")

    def __init__(self) -> None:
        self.s = TURN_MIN_S
        self._answer_s = math.inf

    def note(self, answer_s: float) -> None:
        """The server answered after so long. A slow answer says little, a quick one says all."""
        usual = self._answer_s
        self._answer_s = answer_s if answer_s < usual else usual + (answer_s - usual) / 8
        self.s = min(max(TURN_MIN_S, 2 * self._answer_s), TURN_MAX_S)


class RetryBudget:
    """How long the parts of one call may be tried in vain, all of them together.

    for_s  how many seconds that may be; `None`: of a store that waits for nobody
    """

    __slots__ = ("_clock", "_for_s", "_spent_s")

    def __init__(self, for_s: float | None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._for_s = for_s
        self._spent_s = 0.0

    @contextlib.contextmanager
    def part(self, failed_attempts: Callable[[], int]) -> Iterator[float | None]:
        """The deadline of the part that is made within; `None`: as the settings say.

        in_vain  how many attempts were in vain so far: where that grows, the part's time counts

        Raises `TimedOut` where no time is left.
        """
        start, before = self._clock(), failed_attempts()
        if self._for_s is None or not self._spent_s:
            deadline = None
        elif self._spent_s < self._for_s:
            deadline = start + max(self._for_s - self._spent_s, TURN_MIN_S)
        else:
            raise TimedOut(
                f"gave up after the parts of one call were tried in vain for {self._spent_s:.3g} s,"
                " all together; the others were not begun (see whether the store can be reached)"
            )
        yield deadline
        if failed_attempts() != before:  # a part that failed ends the call
            self._spent_s += self._clock() - start


def agree(soonest: float, latest: float, now: float) -> bool:
    """Whether deadlines that far apart may be kept as one, the soonest.

    Nobody loses more than a tenth of a second, or of the time that is left. Were it always
    the former, a slow server would get a call for each.
    """
    return latest - soonest <= max(AGREE_S, (soonest - now) / 10)

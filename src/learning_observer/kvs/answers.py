"""What a server's refusals and a connection's faults mean."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from learning_observer.kvs.errors import OutcomeUnknown, Refused, Unavailable
from learning_observer.kvs.wire import NOT_NOW, NOT_NOW_CODES

#: What may come out of a call to redis-py. A peer's reset can surface as AttributeError or
#: TypeError (redis/redis-py#4287): the connection is lost all the same.
FAULTS: Final = (RedisError, OSError, EOFError, AttributeError, TypeError)


class Verdict(enum.Enum):
    """What became of a command that got no proper answer."""

    REFUSED = "refused"  # nothing was done, and waiting does not help
    NOT_NOW = "not now"  # nothing was done, and waiting may help
    LOST = "lost"  # no answer came: what was sent may have been done


class Meaning(NamedTuple):
    """What a fault means."""

    verdict: Verdict


def words_of(error: BaseException) -> str:
    """What the server said, beginning with its code, which redis-py cuts off some texts."""
    words, code = str(error), getattr(error, "status_code", None)
    return words if not code or words.startswith(code) else f"{code} {words}"


def classify(error: BaseException) -> Meaning:
    """What `error`, one of `FAULTS`, means for the command that met it."""
    if isinstance(error, NOT_NOW) or words_of(error).split(" ")[0] in NOT_NOW_CODES:
        return Meaning(Verdict.NOT_NOW)
    definite = isinstance(error, ResponseError | AuthenticationError)
    return Meaning(Verdict.REFUSED if definite else Verdict.LOST)


def refused(place: str, error: Exception, *, unknown: bool = False) -> Refused | OutcomeUnknown:
    """What callers get when the server said no."""
    return (OutcomeUnknown if unknown else Refused)(f"{place} refused: {words_of(error)}")


def gave_up(
    place: str, error: Exception, *, tried_s: float, tries: int, unknown: bool = False
) -> Unavailable | OutcomeUnknown:
    """What callers get when the deadline has passed, and `error` was the last fault."""
    return (OutcomeUnknown if unknown else Unavailable)(
        f"{place}: gave up after {tried_s:.3g} s and {tries} tries, the last fault was "
        f"{type(error).__name__}: {words_of(error)}"
    )

"""What the workers' counts have come to, read past the stores."""

from __future__ import annotations

import json
from collections.abc import Iterable

import redis
from tests.faults.worker import key_of

from lo_kvs.stream_analytics.helpers import KeyStateType


def stored_counts(url: str, keys: Iterable[str]) -> dict[str, int]:
    """The number under each key, or in the state under it."""
    with redis.Redis.from_url(url) as client:
        values = {key: json.loads(bytes(client.get(key) or b"0")) for key in keys}
    return {
        key: value["count"] if isinstance(value, dict) else value for key, value in values.items()
    }


def student_counts(url: str, student: str) -> tuple[int, int]:
    """A student's count in the Internal state and in the External one."""
    internal, external = (key_of(student, kind) for kind in KeyStateType)
    counts = stored_counts(url, [internal, external])
    return counts[internal], counts[external]

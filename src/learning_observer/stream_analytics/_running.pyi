from collections.abc import Awaitable, Callable
from typing import Any

from learning_observer.stream_analytics.running import Lender

def run(
    function: Callable[[Any, Any], Awaitable[Any]], event: Any, lender: Lender, /
) -> tuple[Any, bool, bool]: ...

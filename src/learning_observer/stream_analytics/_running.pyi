from collections.abc import Awaitable, Callable
from typing import Any

def run(
    function: Callable[[Any, Any], Awaitable[Any]], event: Any, box: list[Any], /
) -> tuple[Any, bool, bool]: ...

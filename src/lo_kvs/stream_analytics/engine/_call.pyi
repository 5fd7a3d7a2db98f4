from typing import Any

from lo_kvs.stream_analytics.engine.fold import Event, Fold, ReducerFunction

def run(function: ReducerFunction, event: Event, fold: Fold, wanted: bool, /) -> Any: ...

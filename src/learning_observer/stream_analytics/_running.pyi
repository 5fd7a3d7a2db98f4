from typing import Any

from learning_observer.stream_analytics.fold import Event, Fold, ReducerFunction

def run(function: ReducerFunction, event: Event, fold: Fold, wanted: bool, /) -> Any: ...

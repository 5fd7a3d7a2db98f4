"""The engine: runs reducers on cached states and commits them in groups. Compiled."""

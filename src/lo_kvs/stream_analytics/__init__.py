"""Stream analytics: reducers, which fold events into state, and the engine that runs them."""

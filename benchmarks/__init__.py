"""The rows of the performance targets, each with its baselines: `python -m benchmarks`."""

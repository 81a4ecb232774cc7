"""Side by side with the peers, in one run, taken in turn: python -m benchmarks."""

"""Benchmarks of tusd_py and other tus servers, measured in one run in turn: python -m benchmarks."""

"""Generated commands and damaged files, and how a command may end: for tests/fuzz and benchmarks/fuzz.py."""

"""Heads and neurons: where they are, how a part of them runs, and how the rest is frozen."""

"""Callbacks of a run: metrics, progress bar, non-finite updates, stopping."""

"""Checkpoints, and the checks that a resumed run is the original one."""

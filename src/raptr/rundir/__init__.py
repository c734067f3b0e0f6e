"""The format of a run folder: file names, atomic writes, checked reads."""

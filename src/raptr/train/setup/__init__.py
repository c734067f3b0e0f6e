"""Model, arguments and data of a run, from its config."""

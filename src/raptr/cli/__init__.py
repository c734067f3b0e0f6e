"""The command line: what can be asked (`app`, `options`), what is printed (`show`, `show_lists`), the exit codes."""

from raptr.cli.app import main

__all__ = ["main"]

"""The command line: what can be asked, what is printed, and the exit codes."""

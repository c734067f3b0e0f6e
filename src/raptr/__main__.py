"""`python -m raptr` is the `raptr` command."""

from raptr.cli import main

main()

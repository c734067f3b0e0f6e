"""`python -m raptr` is the `raptr` command."""

from raptr.cli import main

if __name__ == "__main__":
    main()

"""The exceptions a user is meant to read."""


class RaptrError(ValueError):
    """Something the user gave cannot be used.

    The message says what was given, what is expected and what to do. The command line
    prints it without a traceback and ends with exit code 2; from Python it is a
    ``ValueError``. Everything else that is raised is a defect of raptr or of its
    environment.
    """


STOPPED = 75
"""The exit code of a command that stopped in order and can go on: EX_TEMPFAIL of sysexits.h, "try again later"."""


class Stopped(Exception):
    """A run was asked to stop, and has saved a checkpoint from which the same command goes on.

    The command line prints it and ends with exit code `STOPPED`.
    """

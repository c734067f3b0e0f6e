"""The one exception a user is meant to read."""


class RaptrError(ValueError):
    """Something the user gave cannot be used.

    The message says what was given, what is expected and what to do. The command line
    prints it without a traceback and ends with exit code 2; from Python it is a
    ``ValueError``. Everything else that is raised is a defect of raptr or of its
    environment.
    """

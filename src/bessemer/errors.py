"""Errors that a user can mend. Each message says what is wrong, where, and how to mend it."""


class BessemerError(ValueError):
    """Something the user can mend; the command line prints the message without a traceback."""


class ConfigError(BessemerError):
    """Wrong usage or a wrong recipe (exit code 2)."""


class DamagedArtifact(BessemerError):
    """A file of an artifact is missing or does not match its recorded checksum."""

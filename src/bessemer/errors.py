"""Errors that a user can mend: each message says what is wrong, where, and how to mend it. And one for what
nobody foresaw in another process."""


class BessemerError(ValueError):
    """Something the user can mend; the command line prints the message without a traceback."""


class ConfigError(BessemerError):
    """Wrong usage or a wrong recipe (exit code 2)."""


class DamagedArtifact(BessemerError):
    """A file of an artifact is missing or does not match its recorded checksum."""


class RaisedElsewhere(RuntimeError):
    """A fault that nobody foresaw, in a process that was started for the work. The message names the process
    and holds its traceback. Where this is raised tells nothing: the command line prints the message alone."""

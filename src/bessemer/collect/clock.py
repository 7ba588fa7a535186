"""Dates of records. SOURCE_DATE_EPOCH, when set, stands for every clock (reproducible-builds.org)."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

from bessemer.errors import ConfigError

Clock = Callable[[], float]
"""Returns seconds since the Unix epoch."""


def fixed_epoch() -> float | None:
    """SOURCE_DATE_EPOCH in seconds, None when not set. Raises ConfigError when it is no whole number."""
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {value!r}; set it to whole seconds since 1970 or unset it")
    return float(value)


def crawl_clock() -> Clock:
    """The clock of a real crawl: real time, unless SOURCE_DATE_EPOCH is set."""
    epoch_s = fixed_epoch()
    return time.time if epoch_s is None else lambda: epoch_s


def file_epoch() -> float:
    """The date of local files: 1970, unless SOURCE_DATE_EPOCH is set.

    A file does not know when its text was captured, and its modification time changes with every
    copy, which would make the same corpus give different bytes on two machines.
    """
    return fixed_epoch() or 0.0


def warc_date(epoch_s: float) -> str:
    """WARC-Date: ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(epoch_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

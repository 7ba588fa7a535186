"""Under torchrun: what only the user can mend is told once, however often torchrun starts the processes anew.

torchrun starts all processes again after any failure, `--max-restarts` times, and offers no way to say that
another attempt would fail alike (pytorch issue 133877, open in torch 2.13). So whoever is refused says so in
the store that torchrun's agent keeps, and the processes that are started after it end at once.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from bessemer.errors import BessemerError, ConfigError
from bessemer.training.parallel.endings import GRACE_S

_REFUSED = "bessemer/refused"
_SILENT_S = 2 * GRACE_S
"""How long a process waits that another speaks for: torchrun ends all others when the first one ends."""
_CONNECT = timedelta(seconds=20)


@contextmanager
def told_once() -> Iterator[None]:
    """Around all that a process of torchrun does.

    A ConfigError, which all processes meet alike, is raised in one of them. In processes that are started
    after an error that only the user can mend, raises BessemerError that says so in the first, at once.
    Where another process tells, raises SystemExit.
    """
    restart, most = (os.environ[f"TORCHELASTIC_{name}"] for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    if restart != "0" and (refusal := _earlier_refusal()) is not None:
        if os.environ["RANK"] != "0":
            time.sleep(_SILENT_S)
            raise SystemExit(1)
        raise BessemerError(
            f"torchrun's restart {restart} of {most} is left out, for it would end as before: {refusal}"
        )
    try:
        yield
    except ConfigError as error:
        if not _is_first_to_tell(str(error)):
            time.sleep(_SILENT_S)
            raise SystemExit(1) from None
        raise


def remember_refusal(text: str) -> None:
    """Let later attempts know of an error that only the user can mend."""
    with suppress(dist.DistError):  # a store that is gone with torchrun's agent: nothing will be started
        _store().set(_REFUSED, text.partition("\n")[0])


def _earlier_refusal() -> str | None:
    with suppress(dist.DistError):
        store = _store()
        if store.check([_REFUSED]):
            return store.get(_REFUSED).decode()
    return None


def _is_first_to_tell(text: str) -> bool:
    remember_refusal(text)
    with suppress(dist.DistError):
        return _store().add(f"{_REFUSED}/{hashlib.sha256(text.encode()).hexdigest()}", 1) == 1
    return True


def _store() -> Any:
    """torchrun's, which outlives restarts."""
    return next(iter(rendezvous("env://", timeout=_CONNECT)))[0]

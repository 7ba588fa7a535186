"""Finished parts of the work over all documents: after a kill they are read instead of made again."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bessemer.runner.files import sha256_of

_IDENTITY = "identity"


class Parts:
    """Named files in a folder, each with a seal (`<name>.json`) that holds its checksum.

    Nothing is fsynced: a part counts only while its checksum matches the seal, and what a power cut spoils
    is made again. A folder that was begun for another `identity` (a digest of all that the parts depend
    on) is emptied first. What is in a part must not depend on memory or threads, which may differ from one
    attempt to the next.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._known: set[str] = set()
        if not self._is_of(identity):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _IDENTITY).write_text(identity)

    def _is_of(self, identity: str) -> bool:
        try:
            return (self._folder / _IDENTITY).read_text() == identity
        except (FileNotFoundError, UnicodeDecodeError):
            return False

    def path(self, name: str) -> Path:
        return self._folder / name

    def is_done(self, name: str) -> bool:
        """Whether the part is complete and intact; reads it once to be sure."""
        if name not in self._known and self._matches_seal(name):
            self._known.add(name)
        return name in self._known

    def _matches_seal(self, name: str) -> bool:
        try:
            seal = json.loads(self._seal(name).read_bytes())
            return seal == {"sha256": sha256_of(self.path(name))}
        except (FileNotFoundError, ValueError):
            return False

    def _seal(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write the part to; leaving the block without an error completes it."""
        partial = self.partial_path(name)
        with partial.open("wb") as file:
            yield file
        self.complete(name)

    def partial_path(self, name: str) -> Path:
        """Where to write a part that `complete` then takes."""
        return self._folder / f".{name}.partial"

    def complete(self, name: str) -> None:
        """Seal what was written to `partial_path`: from here on the part counts."""
        partial = self.partial_path(name)
        seal = partial.with_suffix(".seal")
        seal.write_text(json.dumps({"sha256": sha256_of(partial)}))
        os.replace(partial, self.path(name))
        os.replace(seal, self._seal(name))
        self._known.add(name)

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of a part; `make` is called when it is not there yet."""
        if not self.is_done(name):
            with self.writing(name) as file:
                np.save(file, make(), allow_pickle=False)
        return np.load(self.path(name), allow_pickle=False)

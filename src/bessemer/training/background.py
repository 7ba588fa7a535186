"""One piece of work at a time on a thread beside the training loop."""

import threading
from collections.abc import Callable


class Background:
    """Runs a function in a thread and hands back what it raised."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin; the work before must have been waited for."""
        assert self._thread is None, "wait for the work before"

        def run() -> None:
            try:
                work()
            except BaseException as error:  # handed to whoever waits
                self._error = error

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the work."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> BaseException | None:
        """Wait for the end of the work; what it raised, told once."""
        self.join()
        error, self._error = self._error, None
        return error

"""The next step's batch is made on a thread while this step computes."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Prefetch(Generic[ItemT]):
    """Items by number, where the next one is usually known in advance.

    Everything runs on one thread, so `make` may keep caches. It must be a pure function of the number: a
    guess that was wrong is then only wasted work.
    """

    def __init__(self, make: Callable[[int], ItemT]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="data")
        self._ahead: tuple[int, Future[ItemT]] | None = None
        self.stall_s = 0.0
        """Seconds that the caller has waited for items."""

    def take(self, number: int, following: int | None) -> ItemT:
        """Item `number`; begins to make item `following`. Raises what `make` raises."""
        started = time.perf_counter()
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != number:
            ahead = (number, self._pool.submit(self._make, number))
        item = ahead[1].result()
        self.stall_s += time.perf_counter() - started
        if following is not None:
            self._ahead = (following, self._pool.submit(self._make, following))
        return item

    def call(self, function: Callable[[int], ResultT], number: int) -> ResultT:
        """Run another function on the same thread, so that it may share caches with `make`."""
        return self._pool.submit(function, number).result()

    def __enter__(self) -> "Prefetch[ItemT]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

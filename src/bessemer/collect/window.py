"""URLs under way: fetched out of order, handed on in order.

The window looks ahead over the frontier, so that hosts that are idle get work while a slow one is waited
for. How far it looks bounds what is fetched twice after a crash; how much it holds bounds the memory.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable

from bessemer.collect.frontier import Entry
from bessemer.collect.visit import Visit
from bessemer.urls import authority_of

_LOOKAHEAD_PER_SLOT = 64
"""URLs looked at for each request in flight."""
_MAX_HELD_BYTES = 128 << 20
"""Of visits that are done and wait for those before them; beyond, only the first in line is started."""


class Window:
    """Runs visits of the next URLs and gives them back in the order in which they were added."""

    def __init__(
        self, visit: Callable[[Entry], Awaitable[Visit]], max_concurrency: int, max_per_host: int
    ) -> None:
        self._visit = visit
        self._max_running = 2 * max_concurrency
        # One more than may ask at once, so that the next is ready when a turn ends.
        self._max_running_per_host = max_per_host + 1
        self._size = max_concurrency * _LOOKAHEAD_PER_SLOT
        self._line: deque[Entry] = deque()
        self._tasks: dict[int, asyncio.Task[Visit]] = {}
        self._waiting: defaultdict[str, deque[Entry]] = defaultdict(deque)
        self._ready: deque[str] = deque()
        self._running: Counter[str] = Counter()
        self._held_bytes = 0

    @property
    def num_free(self) -> int:
        """How many more URLs it takes."""
        return max(0, self._size - len(self._line))

    def __len__(self) -> int:
        return len(self._line)

    def add(self, entry: Entry) -> None:
        """Put a URL at the end of the line."""
        authority = authority_of(entry.url)
        self._line.append(entry)
        self._waiting[authority].append(entry)
        self._ready.append(authority)

    async def next(self) -> tuple[Entry, Visit]:
        """What became of the first URL in line. The window must not be empty."""
        self._start_ready()
        entry = self._line[0]
        if entry.id not in self._tasks:
            # The first of its host to wait, too: visits of one host start in the line's order.
            self._start(self._waiting[authority_of(entry.url)].popleft())
        visit = await self._tasks[entry.id]
        self._line.popleft()
        del self._tasks[entry.id]
        self._held_bytes -= visit.num_bytes
        return entry, visit

    async def aclose(self) -> None:
        """Drop what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start_ready(self) -> None:
        """Start visits, hosts taking turns, as far as the limits allow."""
        while self._ready and self._has_room():
            authority = self._ready.popleft()
            waiting = self._waiting[authority]
            if waiting and self._running[authority] < self._max_running_per_host:
                self._start(waiting.popleft())
                if waiting:
                    self._ready.append(authority)
            elif not waiting:
                del self._waiting[authority]

    def _has_room(self) -> bool:
        return self._running.total() < self._max_running and self._held_bytes < _MAX_HELD_BYTES

    def _start(self, entry: Entry) -> None:
        authority = authority_of(entry.url)
        self._running[authority] += 1
        task = asyncio.ensure_future(self._visit(entry))
        self._tasks[entry.id] = task
        task.add_done_callback(lambda done: self._ended(authority, done))

    def _ended(self, authority: str, task: "asyncio.Task[Visit]") -> None:
        self._running[authority] -= 1
        if self._running[authority] <= 0:
            del self._running[authority]
        if task.cancelled() or task.exception() is not None:
            return  # whoever awaits it learns of it
        self._held_bytes += task.result().num_bytes
        if self._waiting.get(authority):
            self._ready.append(authority)
        self._start_ready()

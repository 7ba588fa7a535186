"""Items that a thread takes from an iterator while the caller works on the one before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def taken_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items in order; at most one is held beside the caller's. What `items` raises passes through.

    Worth it where taking an item leaves Python's lock: reading, decompressing.
    """

    def take() -> Item | object:
        return next(items, _END)

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(take)
        while (item := coming.result()) is not _END:
            coming = pool.submit(take)
            yield item  # pyright: ignore[reportReturnType]

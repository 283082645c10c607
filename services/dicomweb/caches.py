"""A cache with a bound in bytes, in which concurrent callers share one load."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps what was used last, as far as it fits. The first part of every key is the tenant.

    Arguments:
        size: bytes that may be kept.
        weigh: bytes of a value.
    """

    def __init__(self, size: int, weigh: Callable[[V], int]) -> None:
        self._size = size
        self._weigh = weigh
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._loading: dict[K, asyncio.Task[V]] = {}
        self.bytes = 0

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """The value of the key; loads it when it isn't here. An error of the load is everybody's and isn't kept."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found[0]
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key, load))
            self._loading[key] = task
            task.add_done_callback(_seen)
        # A caller that goes away must not take the load from the others.
        return await asyncio.shield(task)

    async def _load(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        try:
            value = await load()
            self._keep(key, value)
            return value
        finally:
            self._loading.pop(key, None)

    def _keep(self, key: K, value: V) -> None:
        weight = self._weigh(value)
        if weight > self._size // 2:
            return
        self._kept[key] = (value, weight)
        self.bytes += weight
        while self.bytes > self._size:
            _, (_, gone) = self._kept.popitem(last=False)
            self.bytes -= gone


def _seen(task: "asyncio.Task[V]") -> None:
    """Takes note of an error that every caller has stopped waiting for."""
    if not task.cancelled():
        task.exception()

"""Who is looking at the worklist right now, and what they have not been told yet."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

from libs.web.problems import TooManyRequests, Unavailable

MAX_PENDING: Final = 200
"""Changed studies that wait for one browser. Past that it is told to look for itself."""


@dataclass(frozen=True)
class Change:
    """A study appeared or changed. It says nothing about the patient."""

    study_uid: str
    change: Literal["created", "updated"]
    series_count: int
    instance_count: int


class Stream:
    """What one browser has not been told yet: one entry a study, so that a long study sends few messages."""

    def __init__(self) -> None:
        self._pending: dict[str, Change] = {}
        self._overflowed = False
        self._closed = False
        self._wake = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether nothing will come any more."""
        return self._closed

    def add(self, change: Change) -> None:
        """Notes a change; a study that was new stays new until the browser knows of it."""
        before = self._pending.get(change.study_uid)
        if before is not None and before.change == "created":
            change = Change(change.study_uid, "created", change.series_count, change.instance_count)
        if before is None and len(self._pending) >= MAX_PENDING:
            self._overflowed = True
        else:
            self._pending[change.study_uid] = change
        self._wake.set()

    def refresh(self) -> None:
        """Notes that changes may have been missed."""
        self._overflowed = True
        self._wake.set()

    def close(self) -> None:
        """Ends the stream."""
        self._closed = True
        self._wake.set()

    async def take(self, timeout: float, *, gather: float = 0.0) -> list[Change] | None:
        """The changes so far, after waiting for the first one.

        Arguments:
            timeout: seconds to wait; an empty list after that.
            gather: seconds to go on gathering after the first one.

        Returns:
            ``None`` when there were more than are kept, or some may have been missed.
        """
        try:
            await asyncio.wait_for(self._wake.wait(), timeout)
        except TimeoutError:
            return []
        if not self._closed:
            await asyncio.sleep(gather)
        self._wake.clear()
        if self._closed:
            self._wake.set()
        changes, overflowed = list(self._pending.values()), self._overflowed
        self._pending, self._overflowed = {}, False
        return None if overflowed else changes


class Live:
    """All open streams of this process, by tenant.

    Arguments:
        per_tenant: streams that one tenant may have.
        total: streams altogether.
    """

    def __init__(self, *, per_tenant: int, total: int) -> None:
        self._per_tenant = per_tenant
        self._total = total
        self._streams: defaultdict[str, set[Stream]] = defaultdict(set)
        self._closed = False

    @property
    def open_streams(self) -> Counter[str]:
        """How many streams each tenant has."""
        return Counter({tenant: len(streams) for tenant, streams in self._streams.items()})

    def publish(self, tenant: str, change: Change) -> None:
        """Tells the browsers of that tenant, and nobody else."""
        for stream in self._streams.get(tenant, ()):
            stream.add(change)

    def refresh(self) -> None:
        """Tells all browsers to look for themselves: events may have passed while Kafka could not be reached."""
        for streams in self._streams.values():
            for stream in streams:
                stream.refresh()

    @asynccontextmanager
    async def stream(self, tenant: str) -> AsyncIterator[Stream]:
        """A stream of the tenant's changes from now on.

        Raises:
            TooManyRequests: the tenant has as many as it may.
            Unavailable: this process has as many as it takes, or is stopping.
        """
        if self._closed or self.open_streams.total() >= self._total:
            raise Unavailable("There are too many live connections at the moment.")
        if len(self._streams.get(tenant, ())) >= self._per_tenant:
            raise TooManyRequests("This clinic has too many live connections.", headers={"Retry-After": "30"})
        stream = Stream()
        self._streams[tenant].add(stream)
        try:
            yield stream
        finally:
            self._streams[tenant].discard(stream)
            if not self._streams[tenant]:
                del self._streams[tenant]

    def close(self) -> None:
        """Ends all streams, so that a stop does not wait for them."""
        self._closed = True
        for streams in self._streams.values():
            for stream in streams:
                stream.close()

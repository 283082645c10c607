"""Turns at what is scarce, shared by the tenants that want them: a flood of one tenant slows that tenant.

Three rules, none of which costs anything while a single tenant is there:

- **Whose turn is next**: that of the tenant which has had least, by start-time fair queueing (Goyal, Vin and Cheng,
  1996). A tenant's requests queue behind each other, not behind those of others, however many those are. Who has had
  less than its share of late may catch up at once, up to ``burst``; more is not saved up.
- **Who waits for whom**: while a tenant that has had much less has a turn, one that has had much more gets none, so
  that the small work of the one does not share the machine with the large work of the other. Once both have had about
  the same they go on side by side; and nobody waits for this longer than ``patience``, since a turn may also be slow
  without using anything up.
- **How many at once**: while several tenants are there, each has its share of the turns at most, so that one which
  comes every now and then finds a turn free instead of waiting until a long one of somebody else ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter, Histogram

_WAITED = Histogram(
    "lightbox_turn_wait_seconds",
    "Time that work waited for its turn",
    ["turns", "tenant"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
)
_GRANTED = Counter("lightbox_turn_cost_total", "Work that got its turn, in the unit of the turns", ["turns", "tenant"])
TURN_BYTES: Final = 1 << 20
"""Bytes that cost as much as one turn."""
_THREAD_PATIENCE: Final = 120.0
"""Seconds that a thread waits for a turn before it takes the service for stopped."""


@dataclass(eq=False)
class Turn:
    """A turn that is waited for or held.

    Attributes:
        tenant: whose it is.
        start: the virtual time at which it begins.
        cost: how much is done in it.
        asked: when it was asked for, by the clock.
        granted: done when it may begin.
    """

    tenant: str
    start: float
    cost: float
    asked: float
    granted: asyncio.Future[None]


@dataclass
class _Tenant:
    """What is known of a tenant that is there.

    Attributes:
        held: turns it has now.
        waiting: those it waits for, in the order of their coming.
        ahead: requests for which it counts as having a turn.
        finish: the virtual time at which the last turn it asked for ends.
        left: when it was last seen to have or want a turn, by the clock.
        most: how many it may have at once.
    """

    most: int
    held: list[Turn] = field(default_factory=list)
    waiting: deque[Turn] = field(default_factory=deque)
    ahead: int = 0
    finish: float = 0.0
    left: float = 0.0

    @property
    def next(self) -> float:
        """The virtual time of what it has or wants first; infinite when there is nothing."""
        starts = [turn.start for turn in [*self.held, *list(self.waiting)[:1]]]
        return min([*starts, *([self.finish] if self.ahead else [])], default=float("inf"))


class Turns:
    """A bounded number of turns at once, shared fairly.

    Arguments:
        name: what they are turns at; a label of the metrics.
        at_once: turns at once, of all tenants.
        per_tenant: turns at once of one tenant, even when it is alone.
        strict: a tenant never has more than its share while others are there. Otherwise it may, as long as each of the
            others would find a turn free: for turns that last long and use little.
        burst: how much a tenant that has had less than others may catch up at once.
        apart: how much more one must have had to wait while another has its turn.
        patience: seconds for which it waits for that at most.
        recent: seconds for which a tenant counts as there after its last turn.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        at_once: int,
        *,
        per_tenant: int | None = None,
        strict: bool = True,
        burst: float = 0.0,
        apart: float = float("inf"),
        patience: float = 0.1,
        recent: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._at_once = at_once
        self._per_tenant = per_tenant or at_once
        self._strict = strict
        self._burst = burst
        self._apart = apart
        self._patience = patience
        self._recent = recent
        self._clock = clock
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._virtual = 0.0
        self._tenants: dict[str, _Tenant] = {}

    def present(self, tenant: str) -> int:
        """How many turns a tenant has or waits for."""
        known = self._tenants.get(tenant)
        return len(known.held) + len(known.waiting) if known else 0

    @asynccontextmanager
    async def turn(
        self, tenant: str, cost: float = 1.0, *, timeout: float | None = None, most: int | None = None
    ) -> AsyncIterator[None]:
        """Waits for a turn, and holds it.

        Arguments:
            tenant: whose it is.
            cost: how much is done in it; a tenant that does twice as much in each gets half as many.
            timeout: seconds that it is waited for.
            most: turns at once of this tenant, where it has a bound of its own.

        Raises:
            TimeoutError: it did not come in time.
        """
        taken = await self.take(tenant, cost, timeout=timeout, most=most)
        try:
            yield
        finally:
            self.end(taken)

    @contextmanager
    def ahead(self, tenant: str) -> Iterator[None]:
        """Counts a tenant as one that has a turn, by the second rule, also between its turns while the block lasts."""
        known = self._tenants.setdefault(tenant, _Tenant(self._per_tenant))
        known.ahead += 1
        try:
            yield
        finally:
            known.ahead -= 1
            known.left = self._clock()
            self.grant()

    async def take(
        self, tenant: str, cost: float = 1.0, *, timeout: float | None = None, most: int | None = None
    ) -> Turn:
        """Waits for a turn as ``turn`` does; whoever takes it has to ``end`` it."""
        known = self._tenants.setdefault(tenant, _Tenant(self._per_tenant))
        known.most = most or self._per_tenant
        start = max(self._virtual - self._burst, known.finish)
        wanted = Turn(tenant, start, cost, self._clock(), asyncio.get_running_loop().create_future())
        known.finish = start + cost
        known.waiting.append(wanted)
        self.grant()
        if not wanted.granted.done():
            try:
                async with asyncio.timeout(timeout):
                    await wanted.granted
            except BaseException:
                self._give_up(known, wanted)
                raise
        _WAITED.labels(self._name, tenant).observe(self._clock() - wanted.asked)
        _GRANTED.labels(self._name, tenant).inc(cost)
        return wanted

    def end(self, turn: Turn) -> None:
        """Ends a turn that was taken."""
        known = self._tenants[turn.tenant]
        known.held.remove(turn)
        known.left = self._clock()
        self._held -= 1
        self.grant()

    def _give_up(self, known: _Tenant, wanted: Turn) -> None:
        if not wanted.granted.cancelled():
            self.end(wanted)  # it was granted at the very moment
            return
        known.left = self._clock()
        known.finish -= wanted.cost
        if wanted in known.waiting:
            known.waiting.remove(wanted)
        self.grant()

    def grant(self) -> None:
        """Gives the free turns to those who may have them. Time alone may have made it so."""
        self._forget()
        while self._held < self._at_once:
            able = [one for one in self._tenants.values() if one.waiting and self._may_have(one)]
            if not able:
                return
            tenant = min(able, key=lambda one: (one.waiting[0].start, len(one.held)))
            first = tenant.waiting.popleft()
            if first.granted.cancelled():
                continue
            self._virtual = max(self._virtual, first.start)
            tenant.held.append(first)
            self._held += 1
            first.granted.set_result(None)

    def _may_have(self, tenant: _Tenant) -> bool:
        others = [one for one in self._tenants.values() if one is not tenant]
        if len(tenant.held) >= tenant.most:
            return False
        if self._has_to_wait(tenant.waiting[0], others):
            return False
        if len(tenant.held) < max(1, self._at_once // len(self._tenants)):
            return True
        without = sum(not one.held for one in others)
        return not self._strict and self._at_once - self._held > without

    def _has_to_wait(self, wanted: Turn, others: list[_Tenant]) -> bool:
        """Whether a tenant that has had much less has a turn, or is about to."""
        left = wanted.asked + self._patience - self._clock()
        if left <= 0 or all(self._place(one) >= wanted.start - self._apart for one in others):
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left, self._time_passed)
        return True

    def _place(self, tenant: _Tenant) -> float:
        """Where a tenant stands; what it asked for long ago does not put it further back than any newcomer."""
        return max(tenant.next, self._virtual - self._burst)

    def _time_passed(self) -> None:
        self._timer = None
        self.grant()

    def _forget(self) -> None:
        """Drops tenants that are gone: they have no turn, want none, and had their last one a while ago."""
        now = self._clock()
        gone = [
            name
            for name, one in self._tenants.items()
            if not one.held and not one.waiting and not one.ahead and now - one.left > self._recent
        ]
        for name in gone:
            del self._tenants[name]


class ThreadTurns:
    """Turns as a thread takes them that works its way through blocks: one for each, from the one to the next.

    The turn of the last one lasts until ``close``: until then somebody else is at work on what was sent.

    Arguments:
        turns: the turns.
        tenant: whose work it is.
    """

    def __init__(self, turns: Turns, tenant: str) -> None:
        self._turns = turns
        self._tenant = tenant
        self._loop = asyncio.get_running_loop()
        self._held: Turn | None = None
        self._closed = False

    def __call__(self, size: int) -> None:
        """Is done with a block and waits for the turn of the next one; it blocks.

        Arguments:
            size: bytes of the next block; 0 when there is none, upon which nothing happens.

        Raises:
            TimeoutError: the turn never came.
            InterruptedError: nobody wants the work any more.
        """
        if size:
            asyncio.run_coroutine_threadsafe(self._go_on(size), self._loop).result(_THREAD_PATIENCE)

    def close(self) -> None:
        """Ends the turn that may be held, and the work with its next block; in the event loop."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._held is not None:
            self._turns.end(self._held)
            self._held = None

    async def _go_on(self, size: int) -> None:
        self._end()
        if self._closed:
            raise InterruptedError("the work was given up")
        self._held = await self._turns.take(self._tenant, size / TURN_BYTES)
        if self._closed:
            self._end()

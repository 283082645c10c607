"""Turns at what is scarce, shared by the tenants that want them: a flood of one tenant slows that tenant.

Two rules, both of which cost nothing while a single tenant is there:

- **Whose turn is next**: that of the tenant which has had least, by start-time fair queueing (Goyal, Vin and Cheng,
  1996). A tenant's requests queue behind each other, not behind those of others, however many those are.
- **How many at once**: while several tenants are there, each has its share of the turns at most, so that one which
  comes every now and then finds a turn free instead of waiting until a long one of somebody else ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import Counter as Metric
from prometheus_client import Histogram

_WAITED = Histogram(
    "lightbox_turn_wait_seconds",
    "Time that work waited for its turn",
    ["turns", "tenant"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
)
_GRANTED = Metric("lightbox_turn_cost_total", "Work that got its turn, in the unit of the turns", ["turns", "tenant"])


@dataclass(eq=False)
class _Waiting:
    """Somebody who waits.

    Attributes:
        start: the virtual time at which the turn begins.
        cost: how much is done in it.
        granted: done when it is theirs.
    """

    start: float
    cost: float
    granted: asyncio.Future[None]


@dataclass
class _Tenant:
    """What is known of a tenant that is there.

    Attributes:
        held: turns it has now.
        waiting: those who wait, in the order of their coming.
        finish: the virtual time at which the last turn it asked for ends.
        left: when it was last seen to have or want a turn, by the clock.
        most: turns it may have at once, where it has a bound of its own.
    """

    held: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)
    finish: float = 0.0
    left: float = 0.0
    most: int | None = None


class Turns:
    """A bounded number of turns at once, shared fairly.

    Arguments:
        name: what they are turns at; a label of the metrics.
        at_once: turns at once, of all tenants.
        per_tenant: turns at once of one tenant, even when it is alone.
        strict: a tenant never has more than its share while others are there. Otherwise it may, as long as each of the
            others would find a turn free: for turns that last long and use little.
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
        recent: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._at_once = at_once
        self._per_tenant = per_tenant or at_once
        self._strict = strict
        self._recent = recent
        self._clock = clock
        self._held = 0
        self._virtual = 0.0
        self._tenants: dict[str, _Tenant] = {}

    def present(self, tenant: str) -> int:
        """How many turns a tenant has or waits for."""
        known = self._tenants.get(tenant)
        return known.held + len(known.waiting) if known else 0

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
        known = self._tenants.setdefault(tenant, _Tenant())
        known.most = most
        waiting = _Waiting(max(self._virtual, known.finish), cost, asyncio.get_running_loop().create_future())
        known.finish = waiting.start + cost
        known.waiting.append(waiting)
        began = self._clock()
        self._grant()
        if not waiting.granted.done():
            try:
                async with asyncio.timeout(timeout):
                    await waiting.granted
            except BaseException:
                self._give_up(known, waiting)
                raise
        _WAITED.labels(self._name, tenant).observe(self._clock() - began)
        _GRANTED.labels(self._name, tenant).inc(cost)
        try:
            yield
        finally:
            self._release(known)

    def _give_up(self, known: _Tenant, waiting: _Waiting) -> None:
        if not waiting.granted.cancelled():
            self._release(known)  # it was granted at the very moment
            return
        known.left = self._clock()
        known.finish -= waiting.cost
        if waiting in known.waiting:
            known.waiting.remove(waiting)

    def _release(self, known: _Tenant) -> None:
        known.held -= 1
        known.left = self._clock()
        self._held -= 1
        self._grant()

    def _grant(self) -> None:
        """Gives the free turns to those who may have them."""
        self._forget()
        while self._held < self._at_once:
            able = [one for one in self._tenants.values() if one.waiting and self._may_have(one)]
            if not able:
                return
            tenant = min(able, key=lambda one: (one.waiting[0].start, one.held))
            first = tenant.waiting.popleft()
            if first.granted.cancelled():
                continue
            self._virtual = max(self._virtual, first.start)
            tenant.held += 1
            self._held += 1
            first.granted.set_result(None)

    def _may_have(self, tenant: _Tenant) -> bool:
        if tenant.held >= (tenant.most or self._per_tenant):
            return False
        if tenant.held < max(1, self._at_once // len(self._tenants)):
            return True
        without = sum(not one.held for one in self._tenants.values() if one is not tenant)
        return not self._strict and self._at_once - self._held > without

    def _forget(self) -> None:
        """Drops tenants that are gone: they have no turn, want none, and had their last one a while ago."""
        now = self._clock()
        gone = [
            name
            for name, one in self._tenants.items()
            if not one.held and not one.waiting and now - one.left > self._recent
        ]
        for name in gone:
            del self._tenants[name]

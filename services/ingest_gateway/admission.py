"""Who may upload now: a bounded number of requests at once, of each tenant and in all, so that none starves another."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.ingest_gateway.errors import Busy


class Admission:
    """Lets requests in one after another when many come.

    Arguments:
        at_once: requests under way, of all tenants.
        per_tenant: requests under way of one tenant.
        waiting: requests of one tenant that may wait for their turn.
        timeout: seconds that one waits.
    """

    def __init__(self, *, at_once: int, per_tenant: int, waiting: int, timeout: float) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._per_tenant = per_tenant
        self._waiting = waiting
        self._timeout = timeout
        self._tenants: dict[str, asyncio.Semaphore] = {}
        self._present: dict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Waits for the turn of one request, and holds it.

        Raises:
            Busy: too many wait already, or the turn did not come in time.
        """
        if self._present[tenant] >= self._per_tenant + self._waiting:
            raise Busy("Too many uploads of this tenant are waiting. Send this one again a little later.")
        self._present[tenant] += 1
        own = self._tenants.setdefault(tenant, asyncio.Semaphore(self._per_tenant))
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    await own.acquire()
            except TimeoutError:
                raise Busy("Other uploads of this tenant are still under way.") from None
            try:
                try:
                    async with asyncio.timeout(self._timeout):
                        await self._all.acquire()
                except TimeoutError:
                    raise Busy("Too many uploads are under way.") from None
                try:
                    yield
                finally:
                    self._all.release()
            finally:
                own.release()
        finally:
            self._present[tenant] -= 1
            if not self._present[tenant]:
                del self._present[tenant], self._tenants[tenant]

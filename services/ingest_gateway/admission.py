"""Who may upload now: a bounded number of requests at once, of each tenant and in all, so that none starves another."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from services.ingest_gateway.errors import Busy
from services.ingest_gateway.fairness import Turns


class Admission:
    """Lets requests in one after another when many come, the tenants in turn.

    Arguments:
        at_once: requests under way, of all tenants.
        per_tenant: requests under way of one tenant.
        waiting: requests of one tenant that may wait for their turn.
        timeout: seconds that one waits.
    """

    def __init__(self, *, at_once: int, per_tenant: int, waiting: int, timeout: float) -> None:
        self._turns = Turns("requests", at_once, per_tenant=per_tenant, strict=False)
        self._per_tenant = per_tenant
        self._waiting = waiting
        self._timeout = timeout

    @asynccontextmanager
    async def turn(self, tenant: str, at_once: int | None = None) -> AsyncIterator[None]:
        """Waits for the turn of one request, and holds it.

        Arguments:
            tenant: who wants it.
            at_once: requests under way of this tenant, where it has a bound of its own.

        Raises:
            Busy: too many wait already, or the turn did not come in time.
        """
        if self._turns.present(tenant) >= (at_once or self._per_tenant) + self._waiting:
            raise Busy("Too many uploads of this tenant are waiting. Send this one again a little later.")
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._turns.turn(tenant, timeout=self._timeout, most=at_once))
            except TimeoutError:
                raise Busy("Too many uploads are under way. Send this one again a little later.") from None
            yield

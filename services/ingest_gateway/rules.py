"""The tenants' rules, kept in memory: storing goes on with the last known ones while PostgreSQL is away."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.tenancy import DATABASE_ERRORS
from services.ingest_gateway import store
from services.ingest_gateway.duplicates import TenantRules

_PAUSE: Final = 5.0
"""Seconds for which PostgreSQL is not asked after it did not answer, so that not each request waits for it."""
_log = structlog.get_logger(__name__)


class Pause:
    """Whether PostgreSQL is worth asking."""

    def __init__(self, seconds: float = _PAUSE) -> None:
        self._seconds = seconds
        self._until = float("-inf")

    @property
    def lasts(self) -> bool:
        """Whether it did not answer a moment ago."""
        return time.monotonic() < self._until

    def begin(self) -> None:
        """It did not answer."""
        self._until = time.monotonic() + self._seconds


@dataclass
class _Kept:
    rules: TenantRules
    asked: float


class StoringRules:
    """Reads the rules of tenants.

    Arguments:
        engine: the database.
        pause: shared with whoever asks the same database.
        timeout: seconds for PostgreSQL to answer.
        max_age: seconds after which rules are read again. A change also comes as an event, to one replica at least.
        most: tenants that are kept in memory; the one that was asked for least lately goes first.
    """

    def __init__(
        self, engine: AsyncEngine, pause: Pause, *, timeout: float, max_age: float, most: int = 10_000
    ) -> None:
        self._engine = engine
        self._pause = pause
        self._timeout = timeout
        self._max_age = max_age
        self._most = most
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def of(self, tenant: str) -> TenantRules:
        """The tenant's rules: the last known where PostgreSQL is away, the defaults where none is known."""
        kept = self._kept.get(tenant)
        if kept is not None:
            self._kept.move_to_end(tenant)
            if time.monotonic() - kept.asked < self._max_age:
                return kept.rules
        if not self._pause.lasts:
            try:
                async with asyncio.timeout(self._timeout):
                    kept = _Kept(await store.read_rules(self._engine, tenant), time.monotonic())
            except DATABASE_ERRORS as error:
                self._pause.begin()
                known = kept is not None
                _log.warning("the rules of a tenant can't be read", tenant=tenant, known=known, error=repr(error))
            else:
                self._keep(tenant, kept)
        return kept.rules if kept is not None else TenantRules()

    def forget(self, tenant: str) -> None:
        """Has the tenant's rules read again; until that succeeds, those that are known hold."""
        if tenant in self._kept:
            self._kept[tenant].asked = float("-inf")

    def _keep(self, tenant: str, kept: _Kept) -> None:
        self._kept[tenant] = kept
        self._kept.move_to_end(tenant)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

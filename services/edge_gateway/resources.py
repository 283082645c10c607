"""The spool, the journal and the way to the cloud, opened and closed together."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import structlog

from services.edge_gateway.cloud import Credentials, StowClient
from services.edge_gateway.settings import Settings
from services.edge_gateway.spool import Spool
from services.edge_gateway.store import Journal

_TIMEOUTS = httpx.Timeout(connect=10.0, write=60.0, read=120.0, pool=10.0)
_PROBE_SECONDS = 3.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Resources:
    """What the edge works with.

    Attributes:
        spool: the files.
        journal: their entries.
        cloud: takes batches.
        address: host and port of the cloud.
    """

    spool: Spool
    journal: Journal
    cloud: StowClient
    address: tuple[str, int]

    async def cloud_is_reachable(self) -> bool:
        """Whether a connection to the cloud can be made now."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                _, writer = await asyncio.open_connection(*self.address)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opens everything; the spool is cleaned of what a crash left.

    Raises:
        SpoolInUse: another process works on this spool.
    """
    spool = Spool(
        settings.spool_dir,
        segment_bytes=settings.segment_bytes,
        spare_bytes=settings.spare_bytes,
        minimum_free=settings.minimum_free_bytes,
    )
    try:
        journal = Journal(settings.spool_dir / "journal.sqlite3")
        try:
            recovered, removed = await asyncio.to_thread(spool.open, journal)
            if recovered:
                _log.info("entered instances that a crash had kept out of the journal", instances=recovered)
            if removed:
                _log.info("removed files that were never acknowledged or had left already", files=removed)
            async with _client(settings) as http:
                credentials = Credentials(
                    http, f"{settings.cloud_url}/auth/token", settings.client_id, settings.client_secret
                )
                cloud = StowClient(http, f"{settings.cloud_url}/dicom-web/studies", credentials, spool)
                yield Resources(spool, journal, cloud, _address(settings.cloud_url))
        finally:
            await asyncio.to_thread(spool.settle)
            await asyncio.to_thread(journal.close)
    finally:
        spool.close()


def _client(settings: Settings) -> httpx.AsyncClient:
    verify = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    limits = httpx.Limits(max_connections=settings.uploads + 2)
    return httpx.AsyncClient(timeout=_TIMEOUTS, verify=verify, limits=limits, headers={"User-Agent": "Lightbox-edge"})


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

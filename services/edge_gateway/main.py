"""Where the edge gateway is put together."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from prometheus_client import Gauge

from libs.telemetry import configure
from libs.web import create_app as create_web_app
from libs.web import serve
from services.edge_gateway.api import routes
from services.edge_gateway.dimse import StorageListener
from services.edge_gateway.domain import Backlog, BatchRule
from services.edge_gateway.errors import SpoolInUse
from services.edge_gateway.forwarder import Forwarder
from services.edge_gateway.handlers import Reception
from services.edge_gateway.resources import Resources, open_resources
from services.edge_gateway.settings import Settings

SERVICE = "edge_gateway"
_SPOOLED = Gauge("lightbox_edge_spooled_instances", "Instances in the spool", ["state"])


class _Running:
    """What health checks look at, once it runs."""

    resources: Resources | None = None
    listener: StorageListener | None = None


def create_app(settings: Settings) -> FastAPI:
    """The edge gateway as an application: listener and forwarder run while it does.

    Arguments:
        settings: everything that can be set.
    """
    running = _Running()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as resources:
            forwarder = await _forwarder(settings, resources)
            listener = StorageListener(settings, Reception(resources.spool, resources.journal, forwarder.arrived))
            app.include_router(routes(settings, resources, forwarder, listener))
            for state in ("waiting", "refused"):
                _SPOOLED.labels(state).set_function(partial(_spooled, resources, state))
            forwarding = asyncio.create_task(forwarder.run())
            listener.start()
            running.resources, running.listener = resources, listener
            try:
                yield
            finally:
                running.resources = running.listener = None
                await asyncio.to_thread(listener.stop)
                forwarding.cancel()
                await asyncio.gather(forwarding, return_exceptions=True)
                for state in ("waiting", "refused"):
                    _SPOOLED.remove(state)

    async def listening() -> None:
        if running.listener is None or not running.listener.listening:
            raise RuntimeError("the DICOM listener does not run")

    async def spool() -> None:
        if running.resources is None:
            raise RuntimeError("the spool is not open")
        if running.resources.spool.free_bytes() < settings.minimum_free_bytes:
            raise RuntimeError("the disk is nearly full; scanners are refused")

    return create_web_app(
        SERVICE,
        title="Lightbox edge gateway",
        description="Takes what scanners send and forwards it to the cloud.",
        lifespan=lifespan,
        health={"dimse": listening, "spool": spool},
    )


def _spooled(resources: Resources, state: str) -> float:
    return float(resources.journal.count()[state][0])


async def _forwarder(settings: Settings, resources: Resources) -> Forwarder:
    """A forwarder that knows what waits from earlier runs."""
    rule = BatchRule(instances=settings.batch_instances, bytes=settings.batch_bytes)
    forwarder = Forwarder(
        resources.cloud,
        resources.spool,
        resources.journal,
        Backlog(rule),
        uploads=settings.uploads,
        batch_instances=settings.batch_instances,
        probe=resources.cloud_is_reachable,
    )
    for series, sequence, size in await asyncio.to_thread(lambda: list(resources.journal.waiting())):
        forwarder.arrived(series, sequence, size)
    return forwarder


def run(arguments: list[str]) -> None:
    """Runs the edge gateway until it is told to stop.

    Arguments:
        arguments: none are known.
    """
    if arguments:
        sys.exit(f"the edge gateway takes no arguments, only environment variables: {' '.join(arguments)}")
    settings = Settings()
    configure(SERVICE, level=settings.log_level)
    try:
        serve(create_app(settings), host=settings.host, port=settings.port)
    except SpoolInUse as error:
        sys.exit(str(error))

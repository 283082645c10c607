"""What the edge says of itself over HTTP, to this machine."""

import time
from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from services.edge_gateway.dimse import StorageListener
from services.edge_gateway.forwarder import Forwarder
from services.edge_gateway.handlers import retry_refused
from services.edge_gateway.resources import Resources
from services.edge_gateway.settings import Settings

_LISTED = 100


class Amount(BaseModel):
    """So many instances, so many bytes."""

    instances: int
    bytes: int


class RefusedInstance(BaseModel):
    """An instance that the cloud will not take, kept until somebody decides."""

    sop_instance_uid: str
    study_uid: str
    reason: str
    received: datetime


class Status(BaseModel):
    """How the edge is doing."""

    ae_title: str
    dimse_port: int
    client_id: str
    cloud_url: str
    waiting: Amount = Field(description="acknowledged to the scanners, not yet by the cloud")
    refused: Amount = Field(description="the cloud will not take them; they stay in the spool")
    refused_instances: list[RefusedInstance] = Field(description="the newest of them")
    oldest_waiting: datetime | None
    oldest_waiting_seconds: float | None
    line: str = Field(description="'ok', or what is wrong on the way to the cloud")
    failures: int = Field(description="batches that failed since the last one that got through")
    last_success: datetime | None
    last_error: str
    last_error_time: datetime | None
    free_bytes: int
    minimum_free_bytes: int
    associations: int


class Retried(BaseModel):
    """How many instances go again."""

    instances: int


def routes(settings: Settings, resources: Resources, forwarder: Forwarder, listener: StorageListener) -> APIRouter:
    """The routes of the edge."""
    router = APIRouter()

    @router.get("/status")
    def status() -> Status:
        """Counts, the oldest that waits, the last success and error, the disk."""
        line = forwarder.line
        counts = resources.journal.count()
        oldest = resources.journal.oldest_waiting()
        return Status(
            ae_title=settings.ae_title,
            dimse_port=listener.port,
            client_id=settings.client_id,
            cloud_url=settings.cloud_url,
            waiting=Amount(instances=counts["waiting"][0], bytes=counts["waiting"][1]),
            refused=Amount(instances=counts["refused"][0], bytes=counts["refused"][1]),
            refused_instances=[
                RefusedInstance(
                    sop_instance_uid=one.sop_instance_uid,
                    study_uid=one.study_uid,
                    reason=one.reason,
                    received=_moment(one.received),
                )
                for one in resources.journal.refused(_LISTED)
            ],
            oldest_waiting=None if oldest is None else _moment(oldest),
            oldest_waiting_seconds=None if oldest is None else round(max(0.0, time.time() - oldest), 1),
            line=line.last_error if line.failures else "ok",
            failures=line.failures,
            last_success=None if line.last_success is None else _moment(line.last_success),
            last_error=line.last_error,
            last_error_time=None if line.last_error_time is None else _moment(line.last_error_time),
            free_bytes=resources.spool.free_bytes(),
            minimum_free_bytes=settings.minimum_free_bytes,
            associations=listener.associations,
        )

    @router.post("/retry")
    async def retry() -> Retried:
        """Lets everything that the cloud refused go again."""
        return Retried(instances=await retry_refused(resources.journal, forwarder.arrived))

    return router


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

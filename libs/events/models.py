"""What an event says. Pydantic models are the source; the JSON Schemas in ``schemas/`` are generated from them.

An event carries identifiers, never patient data; ``audit.recorded`` is the one exception to the letter: it names the
study and the patient identifier that were touched, because that is its purpose.
"""

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID, uuid4

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from libs.tenancy.identifier import TenantId

Uid = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
"""A DICOM unique identifier (PS3.5 section 9.1; leading zeros are tolerated, since real devices send them)."""

MAX_WORDS = 2048


def _bounded(text: str) -> str:
    """Cuts what is longer than an event should carry and drops U+0000, which PostgreSQL refuses."""
    return text.replace("\x00", "")[:MAX_WORDS]


Words = Annotated[str, AfterValidator(_bounded)]
"""Free text of at most 2048 characters; what is longer is cut, so that no caller can make an audit event fail."""


class Payload(BaseModel):
    """The part of an event that depends on its type."""

    model_config = ConfigDict(frozen=True, extra="ignore")


P = TypeVar("P", bound=Payload)


class InstancesStored(Payload):
    """A pack was stored: its instances are durable and may be indexed."""

    study_uid: Uid
    series_uid: Uid
    pack_key: str = Field(min_length=1, max_length=512, description="object key of the pack in the tenant's bucket")
    pack_size: int = Field(gt=0, description="bytes of the whole pack")
    index_offset: int = Field(ge=0, description="byte offset of the compressed index entry in the pack")
    index_length: int = Field(gt=0, description="bytes of the compressed index entry")
    instance_count: int = Field(gt=0)
    source: Words = Field(description="who sent it: the subject of the sender's token")


class StudiesChanged(Payload):
    """The catalog entry of a study is new or has changed."""

    study_uid: Uid
    change: Literal["created", "updated"]
    series_count: int = Field(ge=0)
    instance_count: int = Field(ge=0)


class TenantsChanged(Payload):
    """A tenant was created or its state has changed."""

    state: Literal["active", "suspended"]


Action = Literal[
    "log-in",
    "log-out",
    "query",
    "retrieve",
    "store",
    "view",
    "create",
    "change",
    "delete",
    "refuse",
]


class AuditRecorded(Payload):
    """Somebody did something, or was refused (after PS3.15 section A.5)."""

    action: Action
    outcome: Literal["success", "minor-failure", "serious-failure"]
    actor: Words = Field(description="subject of the token, or 'anonymous'")
    actor_name: Words = ""
    service: Words = Field(description="the service that saw it")
    address: Words = Field(default="", description="network address of the caller")
    study_uid: Words = ""
    series_uid: Words = ""
    sop_instance_uid: Words = ""
    patient_id: Words = ""
    resource: Words = Field(default="", description="method and path, or the DIMSE operation")
    query: Words = Field(default="", description="what was searched for")
    instance_count: int = Field(default=0, ge=0)
    detail: Words = Field(default="", description="why it was refused, in words")


class Envelope(BaseModel, Generic[P]):
    """What every event has in common."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID = Field(default_factory=uuid4, description="tells the event from every other")
    type: str
    version: int = Field(ge=1)
    tenant: TenantId = Field(description="whose it is")
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC), description="when it was made")
    traceparent: str = Field(default="", description="W3C trace context of the work that caused the event")
    data: P

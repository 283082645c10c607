"""The catalogue of topics: who produces, who consumes, what the key is, which version is current."""

from dataclasses import dataclass
from typing import Any, Final, Generic

from libs.events.models import (
    AuditRecorded,
    Envelope,
    InstancesStored,
    P,
    StudiesChanged,
    TenantsChanged,
)


@dataclass(frozen=True)
class Topic(Generic[P]):
    """One topic.

    Attributes:
        name: its name in Kafka; ``NAME.dead-letter`` takes what no retry will cure.
        model: the payload.
        type: what the envelope's ``type`` says.
        version: the current version of the payload.
        key: what orders its events, in words.
        producers: the services that write to it.
        consumers: the services that read it.
        partitions: how many consumers of one group can share it.
    """

    name: str
    model: type[P]
    version: int
    key: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: int = 6

    @property
    def type(self) -> str:
        """The event's type: the name of its model."""
        return self.model.__name__

    @property
    def dead_letter(self) -> str:
        """The topic that takes what can't be handled."""
        return f"{self.name}.dead-letter"

    def key_of(self, event: Envelope[Any]) -> bytes:
        """The message key: tenant and, where there is one, study, so that one study's events stay in order."""
        study = getattr(event.data, "study_uid", "") if self.key == "tenant + study" else ""
        return f"{event.tenant}/{study}".encode() if study else event.tenant.encode()


INSTANCES_STORED: Final = Topic(
    name="instances.stored",
    model=InstancesStored,
    version=1,
    key="tenant + study",
    producers=("ingest_gateway",),
    consumers=("indexing",),
)
STUDIES_CHANGED: Final = Topic(
    name="studies.changed",
    model=StudiesChanged,
    version=1,
    key="tenant + study",
    producers=("indexing",),
    consumers=("portal",),
)
TENANTS_CHANGED: Final = Topic(
    name="tenants.changed",
    model=TenantsChanged,
    version=1,
    key="tenant",
    producers=("identity",),
    consumers=("ingest_gateway",),
    partitions=1,
)
AUDIT_RECORDED: Final = Topic(
    name="audit.recorded",
    model=AuditRecorded,
    version=1,
    key="tenant",
    producers=("ingest_gateway", "dicomweb", "identity", "portal", "audit"),
    consumers=("audit",),
)
TOPICS: Final[tuple[Topic[Any], ...]] = (INSTANCES_STORED, STUDIES_CHANGED, TENANTS_CHANGED, AUDIT_RECORDED)


def topic_named(name: str) -> Topic[Any]:
    """The topic of that name.

    Raises:
        KeyError: there is none.
    """
    for topic in TOPICS:
        if topic.name == name:
            return topic
    raise KeyError(name)

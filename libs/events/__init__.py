"""Events: the envelope, the topics, their models and schemas, producing, consuming, dead letters."""

from libs.events.administration import ensure_topics
from libs.events.audittrail import AuditTrail
from libs.events.background import in_background
from libs.events.consumer import consume
from libs.events.envelopes import decode, encode, envelope
from libs.events.errors import AuditUnavailable, EventsUnavailable, EventTooLarge, InvalidEvent
from libs.events.models import (
    AuditRecorded,
    Envelope,
    InstancesStored,
    Payload,
    StudiesChanged,
    TenantsChanged,
)
from libs.events.outbox import add_to_outbox, relay_outbox
from libs.events.producer import Producer
from libs.events.throttle import Throttle
from libs.events.topics import (
    AUDIT_RECORDED,
    INSTANCES_STORED,
    STUDIES_CHANGED,
    TENANTS_CHANGED,
    TOPICS,
    Topic,
    topic_named,
)

__all__ = [
    "AUDIT_RECORDED",
    "INSTANCES_STORED",
    "STUDIES_CHANGED",
    "TENANTS_CHANGED",
    "TOPICS",
    "AuditRecorded",
    "AuditTrail",
    "AuditUnavailable",
    "Envelope",
    "EventTooLarge",
    "EventsUnavailable",
    "InstancesStored",
    "InvalidEvent",
    "Payload",
    "Producer",
    "StudiesChanged",
    "TenantsChanged",
    "Throttle",
    "Topic",
    "add_to_outbox",
    "consume",
    "decode",
    "encode",
    "ensure_topics",
    "envelope",
    "in_background",
    "relay_outbox",
    "topic_named",
]

"""What can go wrong with an event."""

from collections.abc import Iterable
from uuid import UUID

from libs.web.problems import Unavailable


class EventsUnavailable(Unavailable):
    """Kafka did not acknowledge in time. The event may still arrive: consumers are idempotent."""

    title = "The event log is not available at the moment"


class EventTooLarge(ValueError):
    """The event is larger than ``MAX_EVENT_BYTES``; sending it again will not help."""


class AuditUnavailable(Unavailable):
    """An audit record can't be kept, so what it would record must not happen."""

    title = "The audit trail can't be written at the moment"


class InvalidEvent(Exception):
    """A handler's verdict: no retry will ever cure these events; they go to the dead-letter topic.

    Arguments:
        reason: why, in words without patient data.
        events: the ids of the events that are meant. When it is empty the handler does not know; the consumer then
            hands it the events one by one.
    """

    def __init__(self, reason: str, events: Iterable[UUID] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.events = frozenset(events)

"""An event as bytes, and back."""

from typing import Any

from pydantic import ValidationError

from libs.events.errors import EventTooLarge, InvalidEvent
from libs.events.models import Envelope, P
from libs.events.topics import Topic
from libs.telemetry import current_traceparent

MAX_EVENT_BYTES = 128 * 1024
"""The largest event in bytes, whatever its type."""


def envelope(topic: Topic[P], tenant: str, data: P) -> Envelope[P]:
    """An event of the topic, from now, with the trace context of the work under way.

    Arguments:
        topic: where it will go.
        tenant: whose event it is.
        data: the payload.

    Raises:
        ValidationError: the tenant identifier is malformed.
    """
    return Envelope[topic.model](  # type: ignore[name-defined]
        type=topic.type, version=topic.version, tenant=tenant, traceparent=current_traceparent(), data=data
    )


def encode(event: Envelope[Any]) -> bytes:
    """The event as JSON.

    Raises:
        EventTooLarge: it has more than ``MAX_EVENT_BYTES``.
    """
    content = event.model_dump_json().encode()
    if len(content) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"{event.type} {event.id} has {len(content)} bytes; {MAX_EVENT_BYTES} are allowed")
    return content


def decode(topic: Topic[P], content: bytes | None) -> Envelope[P]:
    """The event in a message of the topic.

    Raises:
        InvalidEvent: the message is not a valid event of this topic in a version that is known here.
    """
    if not content or len(content) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"the message has {len(content or b'')} bytes")
    try:
        event: Envelope[P] = Envelope[topic.model].model_validate_json(content)  # type: ignore[name-defined]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidEvent(f"not valid: {where}: {first['msg']}") from error
    if event.type != topic.type:
        raise InvalidEvent("an event of another type")
    if event.version > topic.version:
        raise InvalidEvent(f"version {event.version} is not known yet; {topic.version} is")
    return event

"""The event catalogue for people: ``docs/events.md``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libs.events.schemas import EXAMPLES, examples_of, schema_of
from libs.events.topics import TOPICS, Topic

PAGE = Path("docs/events.md")

_HEAD = """\
# Events

*Generated from `libs/events` by `python -m libs.events.schemas`; don't edit.*

Services learn of each other's work from these topics only. Every message is one JSON envelope; its `data` depends on
the topic. Events carry identifiers, never patient data; `audit.recorded` names the patient that was touched, because
that is its purpose.

A consumer may see an event again, and handles it so that doing it twice changes nothing. What no retry will cure goes
to `<topic>.dead-letter`, with headers that say why and where it came from: `lightbox events dead-letters` shows them,
`lightbox events replay TOPIC` brings them back.
"""


def catalogue() -> str:
    """The whole page."""
    parts = [_HEAD, "\n".join(_overview()), "\n".join(_envelope())]
    parts += ["\n".join(_topic(topic)) for topic in TOPICS]
    return "\n".join(parts)


def _overview() -> Iterator[str]:
    yield "| topic | version | key | from | to |"
    yield "|---|---|---|---|---|"
    for topic in TOPICS:
        producers, consumers = ", ".join(topic.producers), ", ".join(topic.consumers)
        link = f"[`{topic.name}`](#{topic.name.replace('.', '')})"
        yield f"| {link} | {topic.version} | {topic.key} | {producers} | {consumers} |"
    yield ""


def _envelope() -> Iterator[str]:
    yield "## The envelope"
    yield ""
    schema = schema_of(TOPICS[0])
    yield from _fields(schema, {"type": "the name of the payload's model", "version": "of the payload"})


def _topic(topic: Topic[Any]) -> Iterator[str]:
    yield f"## {topic.name}"
    yield ""
    yield f"{(topic.model.__doc__ or '').strip()}"
    yield ""
    yield f"`{topic.type}`, version {topic.version} · key: {topic.key} · {topic.partitions} partition(s)"
    yield ""
    yield f"Schema: `libs/events/schemas/{topic.name}.v{topic.version}.json`"
    yield ""
    yield from _fields(schema_of(topic)["$defs"][topic.type], {})
    for name, content in examples_of(topic).items():
        yield f"`{EXAMPLES.name}/{name}`:"
        yield ""
        yield "```json"
        yield content.decode().strip()
        yield "```"
        yield ""


def _fields(schema: dict[str, Any], told: dict[str, str]) -> Iterator[str]:
    yield "| field | type | required | meaning |"
    yield "|---|---|---|---|"
    for name, value in schema["properties"].items():
        if "$ref" in value:
            kind, meaning = "object", "depends on the topic"
        else:
            kind, meaning = _type(value), told.get(name) or value.get("description", "")
        required = "yes" if name in schema.get("required", ()) else ""
        yield f"| `{name}` | {kind} | {required} | {meaning} |"
    yield ""


def _type(value: dict[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return "integer" if isinstance(value["const"], int) else "string"
    kind = str(value.get("type", ""))
    return f"{kind} ({value['format']})" if "format" in value else kind

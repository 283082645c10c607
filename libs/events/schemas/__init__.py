"""The JSON Schemas of the events, generated from the models and committed beside this file.

``python -m libs.events.schemas`` writes them and the catalogue ``docs/events.md``; with ``--check`` it only compares.
A schema that is there is a promise to every service that runs: the generator refuses to replace it by one that breaks
it. Give the topic a new version instead; the file of the old version stays.
"""

from pathlib import Path
from typing import Any

import orjson

from libs.events.models import Envelope
from libs.events.schemas.compatibility import breaks
from libs.events.topics import TOPICS, Topic

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parent / "examples"


class BreakingChange(Exception):
    """A model was changed in a way that breaks its committed schema."""


def schema_file(topic: Topic[Any]) -> Path:
    """Where the schema of the topic's current version is."""
    return FOLDER / f"{topic.name}.v{topic.version}.json"


def schema_of(topic: Topic[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the topic's messages."""
    schema: dict[str, Any] = Envelope[topic.model].model_json_schema(mode="serialization")  # type: ignore[name-defined]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"{topic.type}, version {topic.version}"
    schema["description"] = f"A message of the topic {topic.name}."
    schema["properties"]["type"] = {"const": topic.type}
    schema["properties"]["version"] = {"const": topic.version}
    # An event without them was not made by this code: defaults are for those who make events.
    schema["required"] = ["id", "type", "version", "tenant", "time", "data"]
    for definition in schema["$defs"].values():
        optional = {name for name, value in definition["properties"].items() if "default" in value}
        definition["required"] = [name for name in definition.get("required", ()) if name not in optional]
    return schema


def rendered(topic: Topic[Any]) -> str:
    """The schema as it is committed."""
    return orjson.dumps(schema_of(topic), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


def examples_of(topic: Topic[Any]) -> dict[str, bytes]:
    """The committed examples of the topic's messages, by file name."""
    return {path.name: path.read_bytes() for path in sorted(EXAMPLES.glob(f"{topic.name}.*.json"))}


def generate() -> dict[Path, str]:
    """Every schema file and what it should contain.

    Raises:
        BreakingChange: a committed schema would be broken.
    """
    files: dict[Path, str] = {}
    for topic in TOPICS:
        path = schema_file(topic)
        if path.exists():
            broken = breaks(orjson.loads(path.read_bytes()), schema_of(topic))
            if broken:
                raise BreakingChange(
                    f"{topic.name}: {'; '.join(broken)}. Services that run now rely on version {topic.version}: "
                    "raise the version in topics.py."
                )
        files[path] = rendered(topic)
    return files

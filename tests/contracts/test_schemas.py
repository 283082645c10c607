"""Schemas, examples and the catalogue of topics: what other services, and old versions of them, rely on."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from libs.events import TOPICS, Topic, decode
from libs.events.administration import new_topics
from libs.events.schemas import FOLDER, BreakingChange, examples_of, generate, schema_file, schema_of
from libs.events.schemas.catalogue import PAGE, catalogue
from libs.events.schemas.compatibility import breaks

BY_NAME = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
EXAMPLES = [(topic, name) for topic in TOPICS for name in examples_of(topic)]
SERVICES = {path.name for path in Path("services").iterdir() if path.is_dir()}


def test_what_is_committed_is_what_is_generated() -> None:
    """Integrators read the committed schemas; they must be those that the services follow."""
    for path, text in generate().items():
        assert path.read_text() == text, f"{path.name} is out of date: python -m libs.events.schemas"
    assert PAGE.read_text() == catalogue(), "docs/events.md is out of date: python -m libs.events.schemas"


def test_the_check_says_so_too() -> None:
    """It is what `make check` runs."""
    done = subprocess.run([sys.executable, "-m", "libs.events.schemas", "--check"], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


@BY_NAME
def test_every_topic_is_complete(topic: Topic[Any]) -> None:
    """A topic without consumer, example or dead letters loses events without anybody noticing."""
    assert examples_of(topic)
    assert topic.consumers
    assert topic.producers
    assert {*topic.consumers, *topic.producers} <= SERVICES
    assert {topic.name, topic.dead_letter} <= {made.name for made in new_topics()}


def test_every_file_belongs_to_a_topic() -> None:
    """A schema or example that nothing checks misleads whoever reads it."""
    versions = {f"{topic.name}.v{version}.json" for topic in TOPICS for version in range(1, topic.version + 1)}
    assert {path.name for path in FOLDER.glob("*.json")} == versions
    known = {name for topic in TOPICS for name in examples_of(topic)}
    assert {path.name for path in (FOLDER.parent / "examples").iterdir()} == known


@pytest.mark.parametrize(("topic", "name"), EXAMPLES, ids=[name for _, name in EXAMPLES])
def test_every_example_is_valid(topic: Topic[Any], name: str) -> None:
    """Integrators copy the examples."""
    content = examples_of(topic)[name]
    validator = Draft202012Validator(
        orjson.loads(schema_file(topic).read_bytes()), format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(orjson.loads(content))
    event = decode(topic, content)
    validator.validate(orjson.loads(event.model_dump_json()))


@BY_NAME
def test_the_schema_refuses_what_the_model_refuses(topic: Topic[Any]) -> None:
    """A schema that lets everything through helps nobody to write to the topic."""
    validator = Draft202012Validator(schema_of(topic))
    event = orjson.loads(next(iter(examples_of(topic).values())))
    for path in (("tenant",), ("data",), ("type",)):
        assert not validator.is_valid({name: value for name, value in event.items() if name != path[0]})
    assert not validator.is_valid({**event, "tenant": "North West"})
    assert not validator.is_valid({**event, "version": topic.version + 1})


def changed(schema: dict[str, Any], how: str) -> dict[str, Any]:
    """The schema of instances.stored with one change."""
    new = deepcopy(schema)
    payload = new["$defs"]["InstancesStored"]
    match how:
        case "removed":
            del payload["properties"]["source"]
            payload["required"].remove("source")
        case "added and required":
            payload["properties"]["site"] = {"type": "string"}
            payload["required"].append("site")
        case "not required any more":
            payload["required"].remove("source")
        case "other type":
            payload["properties"]["source"]["type"] = "integer"
        case "narrower":
            payload["properties"]["pack_size"]["exclusiveMinimum"] = 10
        case "payload removed":
            del new["properties"]["data"]
        case "added":
            payload["properties"]["site"] = {"type": "string", "default": ""}
        case "described":
            payload["properties"]["source"]["description"] = "the sender"
    return new


@pytest.mark.parametrize(
    "how", ["removed", "added and required", "not required any more", "other type", "narrower", "payload removed"]
)
def test_what_would_break_a_running_service_is_found(how: str) -> None:
    """During an upgrade old and new services read each other's events."""
    schema = schema_of(TOPICS[0])
    assert breaks(schema, changed(schema, how))


@pytest.mark.parametrize("how", ["added", "described"])
def test_what_breaks_nothing_is_allowed(how: str) -> None:
    """Otherwise every new field would need a new version."""
    schema = schema_of(TOPICS[0])
    assert breaks(schema, changed(schema, how)) == []


def test_the_generator_does_not_write_over_a_promise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever changes a model is told to raise the version, not helped to break the others."""
    monkeypatch.setattr("libs.events.schemas.FOLDER", tmp_path)
    committed = changed(schema_of(TOPICS[0]), "added and required")
    (tmp_path / f"{TOPICS[0].name}.v1.json").write_bytes(orjson.dumps(committed))
    with pytest.raises(BreakingChange, match="site"):
        generate()

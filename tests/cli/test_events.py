"""``lightbox events`` on a real Kafka."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from cli import events
from cli.output import CliError
from libs.events import TENANTS_CHANGED, Producer
from libs.events.deadletters import count_dead_letters
from libs.events.producer import Message
from tests.support.backing import Backing

Call = Callable[..., Result]


@pytest.fixture
def call(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs ``lightbox events …`` against the Kafka of the run."""
    port = int(backing.kafka_bootstrap.rsplit(":", 1)[-1])
    monkeypatch.setattr("cli.stack_client.Stack.find", lambda: SimpleNamespace(ports={"kafka.broker": port}))
    return lambda *words: CliRunner().invoke(events.app, list(words))


async def bury(backing: Backing, reason: str) -> bytes:
    """Puts a message among the dead letters of tenants.changed."""
    value = json.dumps({"id": str(uuid4())}).encode()
    producer = Producer(backing.kafka_bootstrap, "test")
    await producer.start()
    headers = (("lightbox-reason", reason.encode()), ("lightbox-partition", b"0"), ("lightbox-offset", b"7"))
    await producer.send([Message(TENANTS_CHANGED.dead_letter, b"north", value, headers)])
    await producer.stop()
    return value


def test_what_could_not_be_handled_is_seen_and_brought_back_once(backing: Backing, call: Call) -> None:
    """An operator must find out why images do not appear, and be able to try again after mending the cause."""
    value = asyncio.run(bury(backing, "no such state"))
    letters = json.loads(call("dead-letters", TENANTS_CHANGED.name, "--json").stdout)
    (mine,) = [letter for letter in letters if letter["value"] == value.decode()]
    assert (mine["reason"], mine["offset"], mine["replayed"]) == ("no such state", 7, False)
    assert json.loads(call("replay", TENANTS_CHANGED.name, "--json").stdout)["replayed"] >= 1
    assert json.loads(call("replay", TENANTS_CHANGED.name, "--json").stdout)["replayed"] == 0
    letters = json.loads(call("dead-letters", TENANTS_CHANGED.name, "--json").stdout)
    assert [letter["replayed"] for letter in letters if letter["value"] == value.decode()] == [True]
    waiting, kept = asyncio.run(count_dead_letters(backing.kafka_bootstrap, TENANTS_CHANGED))
    assert (waiting, kept > 0) == (0, True)
    (told,) = [t for t in json.loads(call("topics", "--json").stdout) if t["name"] == TENANTS_CHANGED.name]
    assert (told["dead_letters_waiting"], told["consumers"]) == (0, ["ingest_gateway"])


def test_people_get_tables(call: Call) -> None:
    """Without --json the answer is for reading."""
    assert "instances.stored" in call("topics").stdout
    assert call("dead-letters").exit_code == 0


def test_an_unknown_topic_is_named(call: Call) -> None:
    """A mistyped name must not look like a topic without dead letters."""
    error = call("dead-letters", "instances").exception
    assert isinstance(error, CliError)
    assert "instances.stored" in error.help_text

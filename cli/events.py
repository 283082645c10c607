"""``lightbox events``: topics, what could not be handled, and how it is brought back."""

import asyncio
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import CliError, err, out, print_json, print_next
from cli.stack_client import Stack
from libs.events import TOPICS, EventsUnavailable, Producer, Topic, topic_named
from libs.events.deadletters import DeadLetter, count_dead_letters, read_dead_letters, replay_dead_letters

app = typer.Typer(help="Events: topics, dead letters, replay.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
TopicName = Annotated[str, typer.Argument(help="The topic, such as instances.stored.")]
_LOOK = "Look: lightbox status kafka"


@app.command()
def topics(as_json: Json = False) -> None:
    """List the topics, and how many dead letters wait."""
    bootstrap = _bootstrap(Stack.find())
    rows = [(topic, *_run(count_dead_letters(bootstrap, topic))) for topic in TOPICS]
    if as_json:
        print_json([_topic_json(topic, waiting, kept) for topic, waiting, kept in rows])
        return
    table = Table("topic", "version", "from", "to", "dead letters", box=None, header_style="bold")
    for topic, waiting, kept in rows:
        told = f"[red]{waiting} waiting[/]" if waiting else ("none waiting" if kept else "none")
        producers, consumers = ", ".join(topic.producers), ", ".join(topic.consumers)
        table.add_row(topic.name, str(topic.version), producers, consumers, told)
    out.print(table)
    waiting_in = next((topic.name for topic, waiting, _ in rows if waiting), "")
    if waiting_in:
        print_next((f"lightbox events dead-letters {waiting_in}", "see why they were refused"))


@app.command("dead-letters")
def dead_letters(
    topic: Annotated[str, typer.Argument(help="The topic; all by default.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many of each topic.")] = 50,
    as_json: Json = False,
) -> None:
    """Show what could not be handled, and why."""
    bootstrap = _bootstrap(Stack.find())
    wanted = [_named(topic)] if topic else list(TOPICS)
    letters = [letter for each in wanted for letter in _run(read_dead_letters(bootstrap, each, limit=limit))]
    if as_json:
        print_json([_letter_json(letter) for letter in letters])
        return
    if not letters:
        out.print("There are no dead letters.")
        return
    table = Table("time", "topic", "where", "tenant", "reason", "state", box=None, header_style="bold")
    for letter in letters:
        where = f"{letter.partition}/{letter.offset}"
        tenant = letter.key.decode(errors="replace").partition("/")[0]
        state = "replayed" if letter.replayed else "[red]waits[/]"
        table.add_row(letter.time[:19], letter.topic, where, escape(tenant), escape(letter.reason), state)
    out.print(table)
    waits = next((letter.topic for letter in letters if not letter.replayed), "")
    if waits:
        print_next((f"lightbox events replay {waits}", "hand them to the consumers again, once the cause is mended"))


@app.command()
def replay(
    topic: TopicName,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """Hand the dead letters of a topic to its consumers again, each once."""
    wanted = _named(topic)
    count = _run(_replay(_bootstrap(Stack.find()), wanted, limit))
    if as_json:
        print_json({"topic": topic, "replayed": count})
        return
    err.print(f"Brought back {count} of {topic}." if count else f"Nothing of {topic} waits to be brought back.")
    if count:
        print_next((f"lightbox events dead-letters {topic}", "see whether any was refused again"))


async def _replay(bootstrap: str, topic: Topic[Any], limit: int | None) -> int:
    producer = Producer(bootstrap, "lightbox-cli")
    await producer.start()
    try:
        return await replay_dead_letters(bootstrap, topic, producer, limit=limit)
    finally:
        await producer.stop()


def _run(work: Any) -> Any:
    """Runs a coroutine; that Kafka is away becomes an error for people."""
    try:
        return asyncio.run(work)
    except EventsUnavailable as error:
        raise CliError(str(error), _LOOK) from error


def _bootstrap(stack: Stack) -> str:
    return f"127.0.0.1:{stack.ports['kafka.broker']}"


def _named(name: str) -> Topic[Any]:
    try:
        return topic_named(name)
    except KeyError:
        names = ", ".join(topic.name for topic in TOPICS)
        raise CliError(f"There is no topic {name!r}.", f"It is one of: {names}") from None


def _topic_json(topic: Topic[Any], waiting: int, kept: int) -> dict[str, Any]:
    told = asdict(replace(topic))
    return {name: value for name, value in told.items() if name != "model"} | {
        "type": topic.type,
        "dead_letters": kept,
        "dead_letters_waiting": waiting,
    }


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    return asdict(letter) | {
        "key": letter.key.decode(errors="replace"),
        "value": letter.value.decode(errors="replace"),
    }

"""What no retry will cure: how it is kept, read, and brought back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from libs.events.errors import EventsUnavailable
from libs.events.producer import Message, Producer
from libs.events.topics import Topic

REPLAY_GROUP = "dead-letter-replay"
"""The consumer group that remembers how far each dead-letter topic was replayed."""

_PREFIX = "lightbox-"
_MAX_REASON = 500


def dead_letter(topic: Topic[Any], group: str, record: ConsumerRecord, reason: str) -> Message:
    """The message that keeps a refused one: its key and content as they were, and headers that say why."""
    kept = tuple((name, value) for name, value in record.headers if not name.startswith(_PREFIX))
    told = {
        "reason": reason[:_MAX_REASON],
        "group": group,
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "time": datetime.now(UTC).isoformat(),
    }
    headers = kept + tuple((_PREFIX + name, value.encode()) for name, value in told.items())
    return Message(topic.dead_letter, record.key or b"", record.value or b"", headers)


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        topic: where it came from.
        reason: why it was refused.
        group: the consumer group that refused it.
        partition: its partition there.
        offset: its offset there.
        time: when it was refused, ISO 8601.
        key: the message key.
        value: the message.
        replayed: whether it was brought back already.
    """

    topic: str
    reason: str
    group: str
    partition: int
    offset: int
    time: str
    key: bytes
    value: bytes
    replayed: bool


async def read_dead_letters(bootstrap: str, topic: Topic[Any], *, limit: int = 100) -> list[DeadLetter]:
    """The newest dead letters of a topic, oldest first.

    Arguments:
        bootstrap: ``host:port`` of one broker or more.
        topic: the topic whose dead letters are meant.
        limit: the most that are read.

    Raises:
        EventsUnavailable: Kafka can't be reached.
    """
    partition = TopicPartition(topic.dead_letter, 0)
    consumer = _consumer(bootstrap)
    try:
        async with asyncio.timeout(30):
            await consumer.start()
            consumer.assign([partition])
            done = await consumer.committed(partition) or 0
            begin, end = await _bounds(consumer, partition)
            consumer.seek(partition, max(begin, end - limit))
            return [_letter(topic, record, record.offset < done) async for record in _records(consumer, partition, end)]
    except (KafkaError, OSError, TimeoutError) as error:
        raise EventsUnavailable("Kafka can't be reached.") from error
    finally:
        await consumer.stop()


async def count_dead_letters(bootstrap: str, topic: Topic[Any]) -> tuple[int, int]:
    """How many dead letters of a topic wait to be brought back, and how many are kept in all.

    Raises:
        EventsUnavailable: Kafka can't be reached.
    """
    partition = TopicPartition(topic.dead_letter, 0)
    consumer = _consumer(bootstrap)
    try:
        async with asyncio.timeout(30):
            await consumer.start()
            consumer.assign([partition])
            begin, end = await _bounds(consumer, partition)
            return end - max(begin, await consumer.committed(partition) or 0), end - begin
    except (KafkaError, OSError, TimeoutError) as error:
        raise EventsUnavailable("Kafka can't be reached.") from error
    finally:
        await consumer.stop()


async def replay_dead_letters(
    bootstrap: str, topic: Topic[Any], producer: Producer, *, limit: int | None = None
) -> int:
    """Publishes the dead letters of a topic to it again, oldest first; each once, however often this is called.

    The dead letters stay where they are; a consumer group remembers which were brought back. A crash in the middle may
    bring one back twice, which consumers are ready for.

    Arguments:
        bootstrap: ``host:port`` of one broker or more.
        topic: the topic whose dead letters are meant.
        producer: writes them; must be started.
        limit: the most that are brought back; ``None`` means all.

    Returns:
        How many were brought back.

    Raises:
        EventsUnavailable: Kafka can't be reached; those before were brought back and are remembered.
    """
    count = 0
    partition = TopicPartition(topic.dead_letter, 0)
    consumer = _consumer(bootstrap)
    try:
        await asyncio.wait_for(consumer.start(), 30)
        consumer.assign([partition])
        begin, end = await _bounds(consumer, partition)
        consumer.seek(partition, max(begin, await consumer.committed(partition) or 0))
        async for record in _records(consumer, partition, end):
            if count == limit:
                break
            await producer.send([_revived(topic, record)])
            await consumer.commit({partition: record.offset + 1})
            count += 1
    except (KafkaError, OSError, TimeoutError) as error:
        raise EventsUnavailable("Kafka can't be reached.") from error
    finally:
        await consumer.stop()
    return count


def _consumer(bootstrap: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=REPLAY_GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=15_000,
    )


async def _bounds(consumer: AIOKafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset that is kept and the one after the last. A dead-letter topic has a single partition."""
    begin = await consumer.beginning_offsets([partition])
    end = await consumer.end_offsets([partition])
    return begin[partition], end[partition]


async def _records(consumer: AIOKafkaConsumer, partition: TopicPartition, end: int) -> AsyncIterator[ConsumerRecord]:
    """The records from the consumer's position up to an offset."""
    while await consumer.position(partition) < end:
        batch = await consumer.getmany(partition, timeout_ms=1000, max_records=100)
        for record in batch.get(partition, []):
            if record.offset < end:
                yield record


def _revived(topic: Topic[Any], record: ConsumerRecord) -> Message:
    headers = tuple((name, value) for name, value in record.headers if not name.startswith(_PREFIX))
    return Message(topic.name, record.key or b"", record.value or b"", headers)


def _letter(topic: Topic[Any], record: ConsumerRecord, replayed: bool) -> DeadLetter:
    told = {name.removeprefix(_PREFIX): value.decode(errors="replace") for name, value in record.headers}
    return DeadLetter(
        topic=topic.name,
        reason=told.get("reason", ""),
        group=told.get("group", ""),
        partition=int(told.get("partition", -1)),
        offset=int(told.get("offset", -1)),
        time=told.get("time", ""),
        key=record.key or b"",
        value=record.value or b"",
        replayed=replayed,
    )

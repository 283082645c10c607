"""Reading from Kafka in batches: at least once, and never past an event that was not dealt with.

The offset of an event is committed after the handler returned, or after the event lies in the dead-letter topic.
A handler therefore sees an event again after a crash or a rebalance, and must be idempotent.

- An error that may pass (anything but ``InvalidEvent``) is tried again with growing pauses, forever. Only the partition
  it belongs to waits; the consumer goes on polling, so it keeps its place in the group meanwhile.
- After a few failures the events of a partition are handed over one by one, so that those before the one that fails
  get done.
- What can't be decoded, or is refused by ``InvalidEvent``, goes to the dead-letter topic with headers that say why and
  where it came from.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import uniform
from typing import Generic

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from opentelemetry.trace import use_span
from prometheus_client import Counter

from libs.crash import crash_point
from libs.events.deadletters import dead_letter
from libs.events.envelopes import decode
from libs.events.errors import InvalidEvent
from libs.events.models import Envelope, P
from libs.events.producer import Producer
from libs.events.topics import Topic
from libs.telemetry import start_span

Handler = Callable[[list[Envelope[P]]], Awaitable[None]]
"""Deals with a batch in which the events of one key are in order. It returns when all is durable."""

_ONE_BY_ONE_AFTER = 3
_LONGEST_PAUSE = 30.0
_HANDLED = Counter("lightbox_events_handled_total", "Events dealt with", ["topic", "group"])
_FAILED = Counter("lightbox_event_batches_failed_total", "Batches to be tried again", ["topic", "group"])
_DEAD = Counter("lightbox_events_dead_total", "Events sent to the dead-letter topic", ["topic", "group"])
_log = structlog.get_logger(__name__)


async def consume(
    topic: Topic[P],
    group: str,
    handler: "Handler[P]",
    *,
    bootstrap: str,
    producer: Producer,
    max_batch: int = 500,
    stop: asyncio.Event | None = None,
) -> None:
    """Hands the topic's events to the handler until ``stop`` is set or the task is cancelled.

    It never ends because Kafka is away: it connects again and goes on.

    Arguments:
        topic: what to read.
        group: the consumer group; its members share the partitions. A new group begins with the oldest event.
        handler: see ``Handler``. It raises ``InvalidEvent`` for what no retry will cure, and anything else for what may
            pass. It should bound its own time; after ten minutes Kafka gives the partitions to another member.
        bootstrap: ``host:port`` of one broker or more.
        producer: writes the dead letters; must be started.
        max_batch: the most events in one batch.
        stop: when set, the batch under way is finished and its offset committed.
    """
    stopping = stop or asyncio.Event()
    delay = 0.2
    while not stopping.is_set():
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            client_id=group,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=600_000,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_500,
            request_timeout_ms=15_000,
            retry_backoff_ms=200,
            metadata_max_age_ms=60_000,
        )
        reader = _Reader(topic, group, handler, consumer=consumer, producer=producer, max_batch=max_batch)
        try:
            await _until(stopping, reader.start())
            delay = 0.2
            while not stopping.is_set():
                await reader.poll()
        except Exception as error:
            _log.warning("reading was interrupted; connecting anew", topic=topic.name, error=repr(error))
            await _until(stopping, asyncio.sleep(delay))
            delay = min(delay * 2, 5)
        finally:
            await reader.close()


async def _until(stopping: asyncio.Event, work: Awaitable[None]) -> None:
    """Waits for the work, or gives it up when it is time to stop."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        waiting.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, KafkaError, OSError):
                await task


@dataclass
class _Trouble:
    """A partition whose events failed.

    Attributes:
        failures: how often in a row.
        resume_at: when it is tried again, by the monotonic clock.
    """

    failures: int = 0
    resume_at: float = 0.0


class _Forget(ConsumerRebalanceListener):  # type: ignore[misc]
    """Partitions that come and go start afresh: from the committed offset, without a pause."""

    def __init__(self, troubles: dict[TopicPartition, _Trouble]) -> None:
        self._troubles = troubles

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        for partition in revoked:
            self._troubles.pop(partition, None)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        for partition in assigned:
            self._troubles.pop(partition, None)


class _Reader(Generic[P]):
    """One connection's worth of consuming."""

    def __init__(
        self,
        topic: Topic[P],
        group: str,
        handler: "Handler[P]",
        *,
        consumer: AIOKafkaConsumer,
        producer: Producer,
        max_batch: int,
    ) -> None:
        self._topic = topic
        self._group = group
        self._handler = handler
        self._consumer = consumer
        self._producer = producer
        self._max_batch = max_batch
        self._troubles: dict[TopicPartition, _Trouble] = {}
        self._uncommitted: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Joins the group."""
        self._consumer.subscribe([self._topic.name], listener=_Forget(self._troubles))
        await self._consumer.start()

    async def close(self) -> None:
        """Leaves the group, within five seconds."""
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(5):
                await self._consumer.stop()

    async def poll(self) -> None:
        """Takes what there is, has it dealt with and commits."""
        self._resume()
        batch = await self._consumer.getmany(timeout_ms=400, max_records=self._max_batch)
        sound = {tp: records for tp, records in batch.items() if tp not in self._troubles}
        if sound:
            await self._attempt(sound)
        for partition in batch.keys() - sound.keys():
            trouble = self._troubles.get(partition)
            if trouble is not None and trouble.failures >= _ONE_BY_ONE_AFTER:
                for record in batch[partition]:
                    if not await self._attempt({partition: [record]}):
                        break
            else:
                await self._attempt({partition: batch[partition]})
        await self._commit()

    async def _attempt(self, batch: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> bool:
        """Has a batch dealt with; on a failure its partitions go back to where they were and wait."""
        try:
            await self._deal_with(batch)
        except Exception as error:
            _FAILED.labels(self._topic.name, self._group).inc()
            for partition, records in batch.items():
                self._put_back(partition, records[0].offset, error)
            return False
        crash_point("consumer.handled")
        for partition, records in batch.items():
            self._uncommitted[partition] = records[-1].offset + 1
            trouble = self._troubles.get(partition)
            if trouble is not None:
                trouble.failures -= len(records)
                if trouble.failures <= 0 or len(records) > 1:
                    del self._troubles[partition]
        return True

    async def _deal_with(self, batch: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        events: dict[int, Envelope[P]] = {}
        refused: list[tuple[ConsumerRecord, str]] = []
        records = [record for several in batch.values() for record in several]
        for place, record in enumerate(records):
            try:
                events[place] = decode(self._topic, record.value)
            except InvalidEvent as error:
                refused.append((record, error.reason))
        first = next(iter(events.values()), None)
        span = start_span(f"{self._group} {self._topic.name}", first.traceparent if first else "")
        with use_span(span, end_on_exit=True):
            rejected = await self._handle(events)
        refused.extend((records[place], reason) for place, reason in rejected.items())
        if refused:
            await self._bury(refused)
        _HANDLED.labels(self._topic.name, self._group).inc(len(records) - len(refused))

    async def _handle(self, events: Mapping[int, Envelope[P]]) -> dict[int, str]:
        """Calls the handler until it has accepted all that is left; says what it refused, and why."""
        rejected: dict[int, str] = {}
        left = dict(events)
        while left:
            try:
                await self._handler(list(left.values()))
                return rejected
            except InvalidEvent as error:
                meant = [place for place, event in left.items() if event.id in error.events]
                if len(left) == 1:
                    meant = list(left)
                if not meant:
                    return rejected | await self._handle_singly(left)
                for place in meant:
                    rejected[place] = error.reason
                    del left[place]
        return rejected

    async def _handle_singly(self, events: Mapping[int, Envelope[P]]) -> dict[int, str]:
        rejected: dict[int, str] = {}
        for place, event in events.items():
            try:
                await self._handler([event])
            except InvalidEvent as error:
                rejected[place] = error.reason
        return rejected

    async def _bury(self, refused: Sequence[tuple[ConsumerRecord, str]]) -> None:
        await self._producer.send([dead_letter(self._topic, self._group, record, reason) for record, reason in refused])
        _DEAD.labels(self._topic.name, self._group).inc(len(refused))
        for record, reason in refused:
            _log.error(
                "event sent to the dead-letter topic",
                topic=self._topic.name,
                partition=record.partition,
                offset=record.offset,
                reason=reason,
            )

    def _put_back(self, partition: TopicPartition, offset: int, error: Exception) -> None:
        trouble = self._troubles.setdefault(partition, _Trouble())
        trouble.failures = min(trouble.failures + 1, 1000)
        pause = min(0.25 * 2 ** min(trouble.failures, 10), _LONGEST_PAUSE) * uniform(0.7, 1.0)
        trouble.resume_at = time.monotonic() + pause
        try:
            self._consumer.seek(partition, offset)
            self._consumer.pause(partition)
        except IllegalStateError:
            self._troubles.pop(partition, None)  # another member has it now
            return
        _log.warning(
            "events can't be handled yet; trying again",
            topic=self._topic.name,
            partition=partition.partition,
            offset=offset,
            failures=trouble.failures,
            seconds=round(pause, 1),
            error=repr(error)[:1000],
        )

    def _resume(self) -> None:
        now = time.monotonic()
        assigned = self._consumer.assignment()
        for partition, trouble in self._troubles.items():
            if trouble.resume_at <= now and partition in assigned:
                self._consumer.resume(partition)

    async def _commit(self) -> None:
        """Commits what was dealt with. What can't be committed now is committed with the next, or done again."""
        assigned = self._consumer.assignment()
        self._uncommitted = {p: offset for p, offset in self._uncommitted.items() if p in assigned}
        if not self._uncommitted:
            return
        try:
            await self._consumer.commit(self._uncommitted)
        except (CommitFailedError, IllegalStateError) as error:
            _log.info("offsets were not committed; another member has the partitions", error=repr(error))
        except KafkaError as error:
            _log.warning("offsets can't be committed yet", error=repr(error))
            return
        self._uncommitted = {}

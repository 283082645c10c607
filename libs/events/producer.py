"""Writing to Kafka: acknowledged by all replicas, or an error in bounded time."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from prometheus_client import Counter

from libs.events.envelopes import encode
from libs.events.errors import EventsUnavailable, EventTooLarge
from libs.events.models import Envelope
from libs.events.topics import Topic

MAX_MESSAGE_BYTES = 2 << 20
"""The largest message in bytes; a dead letter may be larger than an event, as it holds whatever arrived."""

_PUBLISHED = Counter("lightbox_events_published_total", "Messages acknowledged by Kafka", ["topic"])
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Message:
    """One message as Kafka has it.

    Attributes:
        topic: the name of the topic.
        key: what decides the partition.
        value: the content.
        headers: names and values.
    """

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = field(default=())


class Producer:
    """Publishes events. It connects in the background and again whenever it must, so a service outlives Kafka.

    Arguments:
        bootstrap: ``host:port`` of one broker or more, joined by commas.
        client_id: the service's name.
    """

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._kafka: AIOKafkaProducer | None = None
        self._connected = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._discarded: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Begins to connect; returns at once and never fails because Kafka is away."""
        self._stopped = False
        self._reconnect()

    async def stop(self) -> None:
        """Sends what is under way for at most five seconds, then lets go."""
        self._stopped = True
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        if self._kafka is not None:
            await _close(self._kafka)
            self._kafka = None
        self._connected.clear()
        if self._discarded:
            await asyncio.wait(self._discarded, timeout=5)

    async def check(self) -> None:
        """A health check.

        Raises:
            EventsUnavailable: there is no connection to Kafka.
        """
        if not self._connected.is_set() or self._kafka is None:
            raise EventsUnavailable("Kafka can't be reached.")
        try:
            async with asyncio.timeout(3):
                await self._kafka.client.fetch_all_metadata()
        except (TimeoutError, KafkaError) as error:
            raise EventsUnavailable("Kafka can't be reached.") from error

    async def publish(
        self, topic: Topic[Any], events: Envelope[Any] | Sequence[Envelope[Any]], timeout: float = 10
    ) -> None:
        """Writes events and waits until every replica that must has them.

        Arguments:
            topic: their topic.
            events: one event or several; those with one key stay in order.
            timeout: seconds until it is given up.

        Raises:
            EventsUnavailable: not all were acknowledged in time. They may arrive nevertheless.
            EventTooLarge: one is larger than allowed; none was sent.
        """
        several = [events] if isinstance(events, Envelope) else events
        await self.send([Message(topic.name, topic.key_of(e), encode(e)) for e in several], timeout)

    async def send(self, messages: Sequence[Message], timeout: float = 10) -> None:
        """Writes messages as they are; the same promises as ``publish``."""
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
                kafka = self._kafka
                if kafka is None:
                    raise EventsUnavailable("The producer was stopped.")
                try:
                    await _send_all(kafka, messages)
                except MessageSizeTooLargeError as error:
                    raise EventTooLarge(str(error)) from error
                except KafkaError as error:
                    _log.warning("publishing failed; connecting anew", error=repr(error))
                    self._discard(kafka)
                    raise EventsUnavailable("Kafka did not take the event.") from error
        except TimeoutError as error:
            raise EventsUnavailable(f"Kafka did not acknowledge within {timeout:g} s.") from error
        for message in messages:
            _PUBLISHED.labels(message.topic).inc()

    def _discard(self, kafka: AIOKafkaProducer) -> None:
        """Lets go of a producer that failed for good (a lost sequence, a dead sender) and connects anew."""
        if self._kafka is not kafka or self._stopped:
            return
        self._kafka = None
        self._connected.clear()
        closing = asyncio.create_task(_close(kafka))
        self._discarded.add(closing)
        closing.add_done_callback(self._discarded.discard)
        self._reconnect()

    def _reconnect(self) -> None:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name="kafka producer connects")

    async def _connect(self) -> None:
        delay = 0.2
        while True:
            kafka = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=10_000,
                retry_backoff_ms=200,
                metadata_max_age_ms=60_000,
                max_request_size=MAX_MESSAGE_BYTES,
                linger_ms=0,
            )
            try:
                async with asyncio.timeout(20):
                    await kafka.start()
            except (KafkaError, OSError, TimeoutError) as error:
                _log.warning("Kafka can't be reached; trying again", error=repr(error), seconds=delay)
                await _close(kafka)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5)
            except asyncio.CancelledError:
                await _close(kafka)
                raise
            else:
                self._kafka = kafka
                self._connected.set()
                return


async def _send_all(kafka: AIOKafkaProducer, messages: Sequence[Message]) -> None:
    futures = [await kafka.send(m.topic, value=m.value, key=m.key, headers=list(m.headers)) for m in messages]
    await asyncio.gather(*futures)


async def _close(kafka: AIOKafkaProducer) -> None:
    """Stops within five seconds; a producer without its broker would wait for it forever."""
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(5):
            await kafka.stop()

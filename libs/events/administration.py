"""Making the topics."""

import asyncio

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from libs.events.errors import EventsUnavailable
from libs.events.producer import MAX_MESSAGE_BYTES
from libs.events.topics import TOPICS

_DAY = 24 * 3600 * 1000
RETENTION_MS = 14 * _DAY
DEAD_LETTER_RETENTION_MS = 90 * _DAY

_log = structlog.get_logger(__name__)


def new_topics(replication: int = 1) -> list[NewTopic]:
    """Every topic and its dead letters, as Kafka is asked for them."""
    wanted = []
    for topic in TOPICS:
        settings = {"retention.ms": str(RETENTION_MS)}
        wanted.append(NewTopic(topic.name, topic.partitions, replication, topic_configs=settings))
        letters = {
            "retention.ms": str(DEAD_LETTER_RETENTION_MS),
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
        }
        wanted.append(NewTopic(topic.dead_letter, 1, replication, topic_configs=letters))
    return wanted


async def ensure_topics(bootstrap: str, *, replication: int = 1, timeout: float = 60) -> list[str]:
    """Creates the topics and their dead letters that do not exist yet, waiting for Kafka where it must.

    Arguments:
        bootstrap: ``host:port`` of one broker or more.
        replication: copies of each partition.
        timeout: seconds to keep trying.

    Returns:
        The names of those that were created.

    Raises:
        EventsUnavailable: Kafka did not answer in time.
    """
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return await _create(bootstrap, replication)
                except (KafkaError, OSError) as error:
                    _log.warning("topics can't be made yet", error=repr(error))
                    await asyncio.sleep(0.5)
    except TimeoutError as error:
        raise EventsUnavailable(f"Kafka did not make the topics within {timeout:g} s.") from error


async def _create(bootstrap: str, replication: int) -> list[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    try:
        await client.start()
        existing = set(await client.list_topics())
        missing = [topic for topic in new_topics(replication) if topic.name not in existing]
        if not missing:
            return []
        answer = await client.create_topics(missing)
        created = []
        for name, code, *_ in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(name)
            if not code:
                created.append(name)
        return created
    finally:
        await client.close()

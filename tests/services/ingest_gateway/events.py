"""Reading back what was published."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from libs.events import Envelope, Topic, decode


async def events_of(
    bootstrap: str, topic: Topic[Any], tenant: str, count: int, timeout: float = 15
) -> list[Envelope[Any]]:
    """The tenant's events of a topic, from the beginning; returns when there are ``count``, or when time is up."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Envelope[Any]] = []
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        async with asyncio.timeout(timeout):
            while len(found) < count:
                batches = await consumer.getmany(timeout_ms=200)
                for messages in batches.values():
                    found += [e for m in messages if (e := decode(topic, m.value)).tenant == tenant]
    except TimeoutError:
        pass
    finally:
        await consumer.stop()
    return found

"""``studies.changed`` → the browsers that are looking.

Every process needs every event, and only those from now on: a browser that connects looks for itself first. So the
topic is read without a consumer group, nothing is committed, and an event that can't be read is passed over, since
there is nothing to do later that would help anybody.
"""

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from libs.events import STUDIES_CHANGED, Envelope, InvalidEvent, StudiesChanged, decode
from services.portal.live import Change, Live

_log = structlog.get_logger(__name__)


async def announce(live: Live, events: Sequence[Envelope[StudiesChanged]]) -> None:
    """Tells the browsers of each event's tenant. Telling twice does no harm."""
    for event in events:
        data = event.data
        live.publish(event.tenant, Change(data.study_uid, data.change, data.series_count, data.instance_count))


async def follow_studies(live: Live, bootstrap: str) -> None:
    """Announces what is published from now on, until the task is cancelled; outlives Kafka being away."""
    delay = 0.2
    while True:
        consumer = AIOKafkaConsumer(
            STUDIES_CHANGED.name,
            bootstrap_servers=bootstrap,
            client_id="portal",
            group_id=None,
            auto_offset_reset="latest",
            metadata_max_age_ms=60_000,
            request_timeout_ms=15_000,
            retry_backoff_ms=200,
        )
        try:
            await consumer.start()
            live.refresh()
            delay = 0.2
            while True:
                batch = await consumer.getmany(timeout_ms=5000, max_records=500)
                values = [record.value for records in batch.values() for record in records]
                await announce(live, [event for event in map(_decoded, values) if event is not None])
        except (KafkaError, OSError) as error:
            _log.warning("studies.changed can't be followed; connecting anew", error=repr(error), seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5)
        finally:
            await consumer.stop()


def _decoded(value: bytes | None) -> Envelope[StudiesChanged] | None:
    try:
        return decode(STUDIES_CHANGED, value)
    except InvalidEvent as error:
        _log.warning("an event was passed over", topic=STUDIES_CHANGED.name, reason=error.reason)
        return None

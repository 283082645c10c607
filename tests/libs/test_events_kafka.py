"""Producing, consuming, dead letters and the audit trail on a real Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from libs.events import (
    AUDIT_RECORDED,
    AuditRecorded,
    AuditTrail,
    AuditUnavailable,
    Envelope,
    EventsUnavailable,
    EventTooLarge,
    InvalidEvent,
    Producer,
    StudiesChanged,
    Topic,
    consume,
    envelope,
)
from libs.events.deadletters import read_dead_letters, replay_dead_letters
from libs.events.producer import Message
from tests.support.backing import Backing

Event = Envelope[StudiesChanged]
NOBODY = "127.0.0.1:9"


@pytest.fixture
async def topic(backing: Backing) -> Topic[StudiesChanged]:
    """A topic of its own, with two partitions, and its dead letters."""
    made = Topic(
        name=f"test-{uuid4().hex}",
        model=StudiesChanged,
        version=1,
        key="tenant + study",
        producers=(),
        consumers=(),
        partitions=2,
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=backing.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(made.name, 2, 1), NewTopic(made.dead_letter, 1, 1)])
    await admin.close()
    return made


@pytest.fixture
async def producer(backing: Backing) -> AsyncIterator[Producer]:
    """A started producer."""
    made = Producer(backing.kafka_bootstrap, "test")
    await made.start()
    yield made
    await made.stop()


def event(topic: Topic[StudiesChanged], study: str = "1.2.3", count: int = 1) -> Event:
    """An event; ``count`` tells it from others."""
    data = StudiesChanged(study_uid=study, change="updated", series_count=1, instance_count=count)
    return envelope(topic, "clinic-a", data)


async def eventually(check: Callable[[], bool | Awaitable[bool]], seconds: float = 15) -> None:
    """Waits until the check holds."""
    async with asyncio.timeout(seconds):
        while True:
            answer = check()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def consuming(
    backing: Backing,
    topic: Topic[Any],
    producer: Producer,
    handler: Callable[[list[Event]], Awaitable[None]],
    group: str = "group",
) -> AsyncIterator[None]:
    """Runs a consumer, and stops it as a service would."""
    stop = asyncio.Event()
    task = asyncio.create_task(
        consume(
            topic,
            group,
            handler,
            bootstrap=backing.kafka_bootstrap,
            producer=producer,
            stop=stop,
        )
    )
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


async def committed(backing: Backing, topic: Topic[Any], group: str = "group") -> int:
    """The sum of the group's offsets."""
    consumer = AIOKafkaConsumer(bootstrap_servers=backing.kafka_bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        return sum([await consumer.committed(partition) or 0 for partition in partitions])
    finally:
        await consumer.stop()


async def test_events_of_one_study_arrive_in_order_and_once(
    backing: Backing, topic: Topic[StudiesChanged], producer: Producer
) -> None:
    """Out of order, a study's older state would overwrite its newer one."""
    seen: list[Event] = []

    async def handler(events: list[Event]) -> None:
        seen.extend(events)

    sent = [event(topic, f"1.2.{n % 7}", n) for n in range(300)]
    await producer.publish(topic, sent)
    async with consuming(backing, topic, producer, handler):
        await eventually(lambda: len(seen) >= 300)
    assert len(seen) == 300
    for study in {e.data.study_uid for e in sent}:
        counts = [e.data.instance_count for e in seen if e.data.study_uid == study]
        assert counts == sorted(counts)
    assert await committed(backing, topic) == 300


async def test_an_error_that_passes_loses_nothing(
    backing: Backing, topic: Topic[StudiesChanged], producer: Producer
) -> None:
    """While the database restarts, events must wait, not vanish."""
    attempts = 0
    seen: set[UUID] = set()

    async def handler(events: list[Event]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 4:
            raise ConnectionError("the database is away")
        seen.update(e.id for e in events)

    sent = [event(topic, "1.2.3", n) for n in range(20)]
    await producer.publish(topic, sent)
    async with consuming(backing, topic, producer, handler):
        await eventually(lambda: attempts >= 2)
        assert await committed(backing, topic) == 0
        await eventually(lambda: len(seen) == 20)
        await eventually(lambda: _is_committed(backing, topic, 20))
    assert await read_dead_letters(backing.kafka_bootstrap, topic) == []


async def _is_committed(backing: Backing, topic: Topic[Any], offset: int) -> bool:
    return await committed(backing, topic) == offset


async def test_one_event_that_keeps_failing_does_not_hold_up_the_others(
    backing: Backing, topic: Topic[StudiesChanged], producer: Producer
) -> None:
    """A single event that never works must not stop the other partition, nor those before it in its own."""
    seen: set[str] = set()

    async def handler(events: list[Event]) -> None:
        for one in events:
            if one.data.study_uid == "9.9":
                raise ConnectionError("still away")
        seen.update(e.data.study_uid for e in events)

    good = [event(topic, f"1.2.{n}") for n in range(8)]
    await producer.publish(topic, [*good, event(topic, "9.9")])
    async with consuming(backing, topic, producer, handler):
        await eventually(lambda: len(seen) == 8, 20)


async def test_poison_goes_to_the_dead_letters_and_comes_back_once(
    backing: Backing, topic: Topic[StudiesChanged], producer: Producer
) -> None:
    """Otherwise one bad message would stop a clinic's images from appearing, or be lost without a trace."""
    healed = False
    seen: list[str] = []

    async def handler(events: list[Event]) -> None:
        bad = [e.id for e in events if e.data.instance_count == 13]
        if bad and not healed:
            raise InvalidEvent("thirteen instances", bad)
        seen.extend(e.data.study_uid for e in events)

    await producer.send([Message(topic.name, b"clinic-a/1", b"{not json")])
    await producer.publish(topic, [event(topic, "1.1"), event(topic, "1.2", 13), event(topic, "1.3")])
    async with consuming(backing, topic, producer, handler):
        await eventually(lambda: set(seen) == {"1.1", "1.3"})
        await eventually(lambda: _is_committed(backing, topic, 4))
        letters = await read_dead_letters(backing.kafka_bootstrap, topic)
        assert sorted(letter.reason.split(":")[0] for letter in letters) == ["not valid", "thirteen instances"]
        assert all(letter.group == "group" and letter.topic == topic.name for letter in letters)
        assert all(letter.offset >= 0 and not letter.replayed for letter in letters)

        healed = True
        assert await replay_dead_letters(backing.kafka_bootstrap, topic, producer, limit=1) == 1
        assert await replay_dead_letters(backing.kafka_bootstrap, topic, producer, limit=1) == 1
        assert await replay_dead_letters(backing.kafka_bootstrap, topic, producer) <= 1
        await eventually(lambda: "1.2" in seen)
    assert seen.count("1.2") == 1
    letters = await read_dead_letters(backing.kafka_bootstrap, topic)
    assert [letter.replayed for letter in letters][:2] == [True, True]


async def test_a_refusal_that_names_no_event_is_narrowed_down(
    backing: Backing, topic: Topic[StudiesChanged], producer: Producer
) -> None:
    """A handler that can't tell which event is bad must not take the good ones along."""
    seen: list[int] = []

    async def handler(events: list[Event]) -> None:
        if any(e.data.instance_count == 13 for e in events):
            raise InvalidEvent("one of these")
        seen.extend(e.data.instance_count for e in events)

    await producer.publish(topic, [event(topic, "1.2", n) for n in (1, 13, 2)])
    async with consuming(backing, topic, producer, handler):
        await eventually(lambda: _is_committed(backing, topic, 3))
    assert seen == [1, 2]
    assert len(await read_dead_letters(backing.kafka_bootstrap, topic)) == 1


async def test_members_of_a_group_share_and_take_over(
    backing: Backing, topic: Topic[StudiesChanged], producer: Producer
) -> None:
    """When one replica of a service stops, another must do the rest of its work."""
    first: set[UUID] = set()
    second: set[UUID] = set()

    async def one(events: list[Event]) -> None:
        first.update(e.id for e in events)

    async def other(events: list[Event]) -> None:
        second.update(e.id for e in events)

    async with consuming(backing, topic, producer, one):
        await producer.publish(topic, [event(topic, f"1.{n}") for n in range(10)])
        await eventually(lambda: len(first) == 10)
        async with consuming(backing, topic, producer, other):
            for _ in range(100):
                await producer.publish(topic, [event(topic, f"1.{n}") for n in range(10)])
                if second:
                    break
                await asyncio.sleep(0.1)
        assert second
        count = len(first)
        await producer.publish(topic, [event(topic, f"1.{n}") for n in range(10)])
        await eventually(lambda: len(first) >= count + 10)


async def test_without_kafka_publishing_fails_in_time_and_nothing_dies() -> None:
    """A service that hangs or ends because Kafka is away would take reading down with it."""
    producer = Producer(NOBODY, "test")
    await producer.start()
    stop = asyncio.Event()

    async def handler(_: list[Event]) -> None:
        raise AssertionError("nothing can arrive")

    task = asyncio.create_task(
        consume(_unreachable(), "group", handler, bootstrap=NOBODY, producer=producer, stop=stop)
    )
    with pytest.raises(EventsUnavailable) as refused:
        await producer.publish(_unreachable(), event(_unreachable()), timeout=0.5)
    assert refused.value.status == 503
    with pytest.raises(EventsUnavailable):
        await producer.check()
    assert not task.done()
    stop.set()
    await asyncio.wait_for(task, 5)
    await asyncio.wait_for(producer.stop(), 10)


def _unreachable() -> Topic[StudiesChanged]:
    return Topic("nowhere", StudiesChanged, 1, "tenant", (), ())


async def test_an_event_that_is_too_large_is_refused(topic: Topic[StudiesChanged], producer: Producer) -> None:
    """Kafka would refuse it after a while, with all that was sent together with it."""
    large = event(topic).model_copy(update={"traceparent": "x" * 200_000})
    with pytest.raises(EventTooLarge):
        await producer.publish(topic, [event(topic), large])


def log_in(name: str) -> AuditRecorded:
    """A record to keep."""
    return AuditRecorded(action="log-in", outcome="success", actor=f"user:{name}", service="test")


def spooled(folder: Path) -> list[str]:
    """The files of a spool."""
    return [str(path) for path in folder.iterdir()]


def damage(folder: Path) -> None:
    """What a loss of power may leave at the end of a file."""
    with next(folder.iterdir()).open("ab") as file:
        file.write(b'{"id": "cut off in the mid')


def killed_recorder(folder: Path, tenant: str) -> subprocess.Popen[bytes]:
    """A process that has recorded twenty log-ins, without Kafka."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), tenant],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"recorded\n"
    process.stdout.close()
    return process


async def recorded(backing: Backing, tenant: str, count: int) -> list[Envelope[AuditRecorded]]:
    """The tenant's audit events, once there are that many."""
    consumer = AIOKafkaConsumer(
        AUDIT_RECORDED.name, bootstrap_servers=backing.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[Envelope[AuditRecorded]] = []
    try:
        async with asyncio.timeout(15):
            while len(found) < count:
                record = await consumer.getone()
                if record.key == tenant.encode():
                    found.append(Envelope[AuditRecorded].model_validate_json(record.value))
    finally:
        await consumer.stop()
    return found


async def test_audit_records_reach_kafka(backing: Backing, tmp_path: Path, producer: Producer) -> None:
    """No access to patient data without a record of it."""
    tenant = f"t-{uuid4().hex[:8]}"
    async with AuditTrail(producer, "test", tmp_path) as trail:
        for n in range(50):
            await trail.record(tenant, log_in(str(n)))
        found = await recorded(backing, tenant, 50)
    assert [e.data.actor for e in found] == [f"user:{n}" for n in range(50)]
    assert spooled(tmp_path) == []


async def test_audit_records_wait_for_kafka_across_a_restart(backing: Backing, tmp_path: Path) -> None:
    """What is done while Kafka is away must be in the audit all the same."""
    tenant = f"t-{uuid4().hex[:8]}"
    away = Producer(NOBODY, "test")
    await away.start()
    async with AuditTrail(away, "test", tmp_path) as trail:
        for n in range(5):
            await trail.record(tenant, log_in(str(n)))
    await away.stop()
    back = Producer(backing.kafka_bootstrap, "test")
    await back.start()
    async with AuditTrail(back, "test", tmp_path) as trail:
        await trail.record(tenant, log_in("5"))
        found = await recorded(backing, tenant, 6)
    await back.stop()
    assert {e.data.actor for e in found} == {f"user:{n}" for n in range(6)}
    assert spooled(tmp_path) == []


KILLED = """
import asyncio, sys
from pathlib import Path
from libs.events import AuditRecorded, AuditTrail, Producer

async def main() -> None:
    producer = Producer("127.0.0.1:9", "test")
    await producer.start()
    async with AuditTrail(producer, "test", Path(sys.argv[1])) as trail:
        for n in range(20):
            await trail.record(sys.argv[2], AuditRecorded(
                action="log-in", outcome="success", actor=f"user:{n}", service="test"))
        print("recorded", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_audit_records_survive_kill_9(backing: Backing, tmp_path: Path, producer: Producer) -> None:
    """A crash right after an access must not erase the record of it."""
    tenant = f"t-{uuid4().hex[:8]}"
    process = await asyncio.to_thread(killed_recorder, tmp_path, tenant)
    async with AuditTrail(producer, "test", tmp_path):
        await asyncio.sleep(0.3)
        assert spooled(tmp_path), "the file of a living process is not taken from it"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    damage(tmp_path)
    async with AuditTrail(producer, "test", tmp_path):
        found = await recorded(backing, tenant, 20)
    assert [e.data.actor for e in found] == [f"user:{n}" for n in range(20)]


async def test_an_audit_record_that_cant_be_kept_stops_the_deed(tmp_path: Path) -> None:
    """Better no access than an access without a record."""
    trail = AuditTrail(Producer(NOBODY, "test"), "test", tmp_path, max_bytes=1000)
    for n in range(2):
        await trail.record("clinic-a", log_in(str(n)))
    with pytest.raises(AuditUnavailable) as refused:
        await trail.record("clinic-a", log_in("2"))
    assert refused.value.status == 503
    trail.close()


def test_long_and_odd_words_never_make_an_audit_record_fail() -> None:
    """A query of a megabyte, or one with U+0000, is recorded too."""
    record = AuditRecorded(action="query", outcome="success", actor="user:a\x00", service="test", query="x" * 1_000_000)
    assert (record.actor, len(record.query)) == ("user:a", 2048)

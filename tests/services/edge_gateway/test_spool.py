"""The spool and its journal: what was made durable is found again, what was torn is not, and space comes back."""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from services.edge_gateway.domain import Instance
from services.edge_gateway.errors import OutOfResources
from services.edge_gateway.segments import Arrival, Draft, Segment, create, new_generation, read_records
from services.edge_gateway.spool import Spool
from services.edge_gateway.store import Added, Journal

MIB = 1 << 20


@contextmanager
def opened(root: Path, *, spare: int = 0, minimum_free: int = 0) -> Iterator[tuple[Spool, Journal]]:
    spool = Spool(root, segment_bytes=2 * MIB, spare_bytes=spare, minimum_free=minimum_free)
    journal = Journal(root / "journal.sqlite3")
    try:
        spool.open(journal)
        yield spool, journal
    finally:
        spool.settle()
        journal.close()
        spool.close()


def sealed(draft: Draft, uid: str = "1.2.3") -> Arrival:
    return draft.seal(
        sop_instance_uid=uid,
        sop_class_uid="1.2",
        transfer_syntax="1.2.840.10008.1.2.1",
        study_uid="1.2.1",
        series_uid="1.2.2",
        calling_ae_title="CT1",
        received=1234.5,
    )


def stored(spool: Spool, journal: Journal, content: bytes, uid: str = "1.2.3", *, enter: bool = True) -> Arrival:
    segment = spool.take()
    draft = segment.begin(b"")
    draft.write(content)
    arrival = sealed(draft, uid)
    spool.count(arrival.file)
    if enter:
        journal.enter(arrival, lambda added: spool.release(added.unneeded) if added.unneeded else None)
    spool.give_back(segment)
    return arrival


def entries(journal: Journal) -> list[Instance]:
    journal.settle()
    return journal.load([sequence for _, sequence, _ in journal.waiting()])


def content_of(spool: Spool, instance: Instance) -> bytes:
    return spool.path(instance.file).read_bytes()[instance.offset :][: instance.size]


def sizes(root: Path) -> list[int]:
    found = []
    for path in (root / "segments").iterdir():
        with suppress(FileNotFoundError):
            found.append(path.stat().st_size)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("spare", [0, 8 * MIB])
def test_what_is_sealed_is_found_again_without_its_row(tmp_path: Path, spare: int) -> None:
    """The scanner was told that its image is safe: a crash before the row was written must not make that a lie."""
    contents = [bytes([number]) * (300_000 + number) for number in range(12)]
    with opened(tmp_path, spare=spare) as (spool, journal):
        for number, content in enumerate(contents):
            stored(spool, journal, content, f"1.2.{number}", enter=number < 5)
        assert len(entries(journal)) == 5
    for _ in range(2):
        with opened(tmp_path, spare=spare) as (spool, journal):
            found = entries(journal)
            assert [content_of(spool, instance) for instance in sorted(found, key=lambda i: len(i.sop_instance_uid))]
            assert {instance.sop_instance_uid for instance in found} == {f"1.2.{n}" for n in range(12)}
            for instance in found:
                number = int(instance.sop_instance_uid.rpartition(".")[2])
                assert content_of(spool, instance) == contents[number]
                assert instance.sha256 == hashlib.sha256(contents[number]).hexdigest()
                assert instance.received == 1234.5


@pytest.mark.parametrize("where", ["header", "content", "end", "cut"])
def test_a_torn_record_does_not_count(tmp_path: Path, where: str) -> None:
    """Half an image that looks whole is worse than one the scanner has to send again."""
    path = tmp_path / "a.segment"
    generation = new_generation()
    create(path, MIB, written=True)
    segment = Segment(path, generation, MIB)
    first, second = segment.begin(b"head"), None
    first.write(b"x" * 10_000)
    whole = sealed(first)
    second = segment.begin(b"head")
    second.write(b"y" * 10_000)
    torn = sealed(second, "1.2.4")
    segment.close()
    assert [record.sop_instance_uid for record in read_records(path, generation, 0)] == ["1.2.3", "1.2.4"]
    content = bytearray(path.read_bytes())
    if where == "cut":
        del content[torn.offset + 5000 :]
    else:
        position = {"header": torn.offset - 900, "content": torn.offset, "end": torn.offset + torn.size - 1}[where]
        content[position] ^= 1
    path.write_bytes(content)
    assert list(read_records(path, generation, 0)) == [whole]
    assert list(read_records(path, new_generation(), 0)) == []


def test_a_discarded_record_is_written_over(tmp_path: Path) -> None:
    """What was refused leaves no hole, takes no room, and is never taken for an instance."""
    path = tmp_path / "a.segment"
    generation = new_generation()
    create(path, MIB, written=True)
    segment = Segment(path, generation, MIB)
    for _ in range(5):
        draft = segment.begin(b"head")
        draft.write(b"z" * (3 * MIB))
        draft.discard()
        assert path.stat().st_size == MIB
    draft = segment.begin(b"head")
    draft.write(b"x")
    arrival = sealed(draft)
    assert list(read_records(path, generation, 0)) == [arrival]
    assert arrival.end == 4096
    segment.close()


def test_segments_are_used_again_and_old_records_never_come_back(tmp_path: Path) -> None:
    """An image that was forwarded and forgotten must not be sent again, nor its space be lost."""
    with opened(tmp_path, spare=4 * MIB) as (spool, journal):
        wait_until(lambda: len(list((tmp_path / "segments").iterdir())) == 1)
        for round_number in range(12):
            for number in range(4):
                stored(spool, journal, bytes(500_000), f"1.{round_number}.{number}")
            waiting = entries(journal)
            assert len(waiting) == 4
            journal.delete([instance.sequence for instance in waiting], durable=False).result()
            for instance in waiting:
                spool.release(instance.file)
            wait_until(lambda: len(list((tmp_path / "segments").iterdir())) <= 4)
        assert sum(sizes(tmp_path)) <= 10 * MIB
    with opened(tmp_path, spare=4 * MIB) as (_, journal):
        assert entries(journal) == []


def test_a_data_set_may_outgrow_its_segment(tmp_path: Path) -> None:
    """A multi-frame image is larger than any segment, and its space is given back afterwards."""
    content = bytes(range(256)) * 4096 * 7
    with opened(tmp_path, spare=2 * MIB) as (spool, journal):
        arrival = stored(spool, journal, content)
        (instance,) = entries(journal)
        assert content_of(spool, instance) == content
        journal.delete([instance.sequence], durable=False).result()
        spool.release(arrival.file)
        wait_until(lambda: set(sizes(tmp_path)) <= {2 * MIB})


def test_the_same_bytes_are_entered_once_and_their_space_comes_back(tmp_path: Path) -> None:
    """A sender that repeats itself must not fill the disk."""
    with opened(tmp_path) as (spool, journal):
        for _ in range(20):
            stored(spool, journal, b"a" * 700_000)
        assert len(entries(journal)) == 1
        wait_until(lambda: len(list((tmp_path / "segments").iterdir())) <= 2)


def test_a_refused_instance_does_not_hold_its_segment(tmp_path: Path) -> None:
    """One image that the cloud will not take, kept for weeks, must not hold the space of sixty others."""
    with opened(tmp_path) as (spool, journal):
        stored(spool, journal, b"refused")
        (instance,) = entries(journal)
        journal.refuse({instance.sequence: "no"}).result()
        file = spool.set_apart(instance)
        assert journal.move(instance, file).result()
        spool.release(instance.file)
        wait_until(lambda: list((tmp_path / "segments").iterdir()) == [])
        assert not journal.move(instance, "elsewhere").result()
        journal.retry_refused().result()
    with opened(tmp_path) as (spool, journal):
        (instance,) = entries(journal)
        assert content_of(spool, instance) == b"refused"
        journal.delete([instance.sequence], durable=True).result()
        spool.release(instance.file)
        assert list((tmp_path / "instances").iterdir()) == []


def test_no_room_means_out_of_resources(tmp_path: Path) -> None:
    """The scanner keeps what there is no room for."""
    with opened(tmp_path, minimum_free=1 << 62) as (spool, _), pytest.raises(OutOfResources):
        spool.take()


def test_an_edge_from_before_there_were_segments_is_taken_over(tmp_path: Path) -> None:
    """An upgrade must not lose what waits in the spool, nor leave its files for ever."""
    (tmp_path / "instances").mkdir()
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "half.dcm").write_bytes(b"half")
    (tmp_path / "instances" / "a.dcm").write_bytes(b"an instance")
    (tmp_path / "instances" / "stray.dcm").write_bytes(b"was never acknowledged")
    with sqlite3.connect(tmp_path / "journal.sqlite3") as old:
        old.executescript(_JOURNAL_BEFORE)
        digest = hashlib.sha256(b"an instance").hexdigest()
        old.execute(
            "INSERT INTO instances VALUES (7, '1.2.3', '1.2', '1.2.840.10008.1.2', '1.4', '1.5', 'a.dcm', 11, ?, 5.5,"
            " 'CT1', 'waiting', '')",
            (digest,),
        )
    old.close()
    with opened(tmp_path) as (spool, journal):
        (instance,) = entries(journal)
        assert instance == Instance(7, "1.2.3", "1.4", "1.5", "a.dcm", 11, digest, 5.5, 0)
        assert content_of(spool, instance) == b"an instance"
        assert [path.name for path in tmp_path.glob("in*/*")] == ["a.dcm"]
        stored(spool, journal, b"a new one", "1.2.4")
        assert [instance.sequence for instance in entries(journal)] == [7, 8]


_JOURNAL_BEFORE = """
CREATE TABLE instances (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    file TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    received REAL NOT NULL,
    calling_ae_title TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'refused')),
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (sop_instance_uid, sha256)
) STRICT;
CREATE INDEX instances_state ON instances (state, sequence);
"""


def test_an_entry_that_fails_waits_and_none_of_its_segment_overtakes_it(tmp_path: Path) -> None:
    """A journal that can't be written for a moment must not lose what was acknowledged meanwhile."""
    with opened(tmp_path) as (spool, journal):
        stored(spool, journal, b"first")
        journal.settle()
        blocker = sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
        journal._writer.execute("PRAGMA busy_timeout = 50")
        blocker.execute("BEGIN IMMEDIATE")
        fates: list[Added] = []
        for number in range(3):
            segment = spool.take()
            draft = segment.begin(b"")
            draft.write(b"abc")
            arrival = sealed(draft, f"1.9.{number}")
            spool.count(arrival.file)
            journal.enter(arrival, fates.append)
            spool.give_back(segment)
        time.sleep(0.5)
        assert fates == []
        blocker.execute("ROLLBACK")
        blocker.close()
        wait_until(lambda: len(fates) == 3)
        assert len(entries(journal)) == 4

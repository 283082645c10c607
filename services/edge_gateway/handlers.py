"""The use cases: receive an instance from a scanner, forward a batch to the cloud, let refused ones go again."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from libs.crash import crash_point
from libs.dicom.errors import DicomError, InvalidUid
from libs.dicom.header import Header, read_header
from libs.dicom.part10 import file_meta
from services.edge_gateway.domain import Answer, Instance, SeriesKey, Verdict, judge, without_repeats
from services.edge_gateway.errors import (
    BatchRefused,
    CannotUnderstand,
    DoesNotMatch,
    OutOfResources,
    SpoolDamaged,
    StoreRefused,
)
from services.edge_gateway.store import Added, Arrival, Draft, Journal, Spool

_JOURNAL_TIMEOUT: Final = 30.0
_log = structlog.get_logger(__name__)

Arrived = Callable[[SeriesKey, int, int], None]
"""Is told series, sequence and size of what now waits."""


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request, its data set as received.

    Attributes:
        sop_class_uid: (0000,0002) Affected SOP Class UID.
        sop_instance_uid: (0000,1000) Affected SOP Instance UID.
        transfer_syntax: of the accepted presentation context.
        data_set: the encoded data set.
        calling_ae_title: who sends.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    data_set: memoryview
    calling_ae_title: str


class Cloud(Protocol):
    """What takes a batch: the STOW-RS client, or a stand-in with the same contract."""

    async def store(self, batch: Sequence[Instance]) -> Answer:
        """Sends a batch.

        Raises:
            CloudAway: later.
            BatchRefused: not in this form.
            SpoolDamaged: one of the files is not what the journal says.
        """


def receive_instance(
    spool: Spool, journal: Journal, request: StoreRequest, *, minimum_free: int, arrived: Arrived
) -> None:
    """Puts an instance into the spool. When this returns, file and journal entry are on the disk.

    The same instance with the same bytes, while it waits, is a success that stores nothing twice; with different bytes
    it is an entry of its own. Blocking; each association calls it from its own thread.

    Arguments:
        spool: where the file goes.
        journal: where its entry goes.
        request: what arrived.
        minimum_free: bytes that must stay free on the disk.
        arrived: is told of what now waits.

    Raises:
        StoreRefused: with the status to answer; nothing was kept.
    """
    if spool.free_bytes() - len(request.data_set) < minimum_free:
        raise OutOfResources("the disk of the edge gateway is nearly full")
    try:
        head = file_meta(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax=request.transfer_syntax,
        )
    except InvalidUid as error:
        raise CannotUnderstand(error.reason) from error
    try:
        draft = spool.write((head, request.data_set))
    except OSError as error:
        raise OutOfResources(f"the spool can't be written: {error.strerror}") from error
    try:
        header = _checked_header(draft, request)
    except BaseException:
        spool.discard(draft)
        raise
    _enter(spool, journal, request, draft, header, arrived=arrived)


def _checked_header(draft: Draft, request: StoreRequest) -> Header:
    try:
        header = read_header(draft.path)
    except DicomError as error:
        raise CannotUnderstand(error.reason) from error
    if header.sop_instance_uid != request.sop_instance_uid:
        raise DoesNotMatch("the SOP Instance UID of the data set is not that of the command")
    if header.sop_class_uid != request.sop_class_uid:
        raise DoesNotMatch("the SOP Class UID of the data set is not that of the command")
    return header


def _enter(
    spool: Spool,
    journal: Journal,
    request: StoreRequest,
    draft: Draft,
    header: Header,
    *,
    arrived: Arrived,
) -> None:
    """The file first, then the entry: what the journal counts on is there."""
    try:
        file = spool.keep(draft)
    except OSError as error:
        raise OutOfResources(f"the spool can't be written: {error.strerror}") from error
    crash_point("edge.synced")
    arrival = Arrival(
        sop_instance_uid=request.sop_instance_uid,
        sop_class_uid=request.sop_class_uid,
        transfer_syntax=request.transfer_syntax,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        file=file,
        size=draft.size,
        sha256=draft.sha256,
        calling_ae_title=request.calling_ae_title,
    )

    def entered(entry: Future[Added]) -> None:
        if entry.exception() is not None:
            spool.remove(file)
            return
        if unneeded := entry.result().unneeded:
            spool.remove(unneeded)
        if entry.result().fate != "known":
            arrived((header.study_uid, header.series_uid), entry.result().sequence, draft.size)

    entry = journal.add(arrival)
    entry.add_done_callback(entered)
    try:
        entry.result(_JOURNAL_TIMEOUT)
    except sqlite3.Error as error:
        raise OutOfResources(f"the journal can't be written: {error}") from error
    except TimeoutError as error:
        # It may be entered yet, and is then forwarded; the sender's retry does no harm.
        raise OutOfResources("the journal is too slow") from error
    crash_point("edge.entered")


async def forward_batch(cloud: Cloud, batch: Sequence[Instance]) -> dict[int, Verdict]:
    """Sends a batch and says what became of each instance, by sequence number.

    A batch that the cloud refuses as a whole is halved until the instance that it means stands alone.

    Raises:
        CloudAway: nothing is known of the whole batch; it goes again later.
    """
    distinct, repeats = without_repeats(batch)
    verdicts = await _forward_distinct(cloud, distinct)
    if repeats:
        verdicts |= await forward_batch(cloud, repeats)
    return verdicts


async def _forward_distinct(cloud: Cloud, batch: Sequence[Instance]) -> dict[int, Verdict]:
    if not batch:
        return {}
    try:
        answer = await cloud.store(batch)
    except SpoolDamaged as damage:
        _log.error("a spooled file is damaged", sequence=damage.sequence, reason=damage.reason)
        rest = [instance for instance in batch if instance.sequence != damage.sequence]
        return {damage.sequence: Verdict("refused", damage.reason), **await _forward_distinct(cloud, rest)}
    except BatchRefused as refusal:
        if len(batch) == 1:
            return {batch[0].sequence: Verdict("refused", refusal.reason)}
        _log.warning("the cloud refused a batch; it goes in halves", size=len(batch), reason=refusal.reason)
        middle = len(batch) // 2
        verdicts = await _forward_distinct(cloud, batch[:middle])
        return verdicts | await _forward_distinct(cloud, batch[middle:])
    return {instance.sequence: judge(instance, answer) for instance in batch}


async def forget_stored(spool: Spool, journal: Journal, stored: Sequence[Instance]) -> None:
    """Lets instances leave the spool: the entries first, then the files."""
    if stored:
        crash_point("edge.proven")
        await asyncio.wrap_future(journal.delete([instance.sequence for instance in stored]))
        crash_point("edge.forgotten")
        for instance in stored:
            spool.remove(instance.file)


async def retry_refused(journal: Journal, arrived: Arrived) -> int:
    """Lets everything that the cloud refused go again, and says how many that are."""
    revived = await asyncio.wrap_future(journal.retry_refused())
    for series, sequence, size in revived:
        arrived(series, sequence, size)
    return len(revived)


__all__ = [
    "Arrived",
    "Cloud",
    "StoreRefused",
    "StoreRequest",
    "forget_stored",
    "forward_batch",
    "receive_instance",
    "retry_refused",
]

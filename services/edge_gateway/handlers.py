"""The use cases: receive an instance from a scanner, forward a batch to the cloud, let refused ones go again."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from libs.crash import crash_point
from libs.dicom.errors import DicomError, InvalidUid
from libs.dicom.header import read_header
from libs.dicom.identity import Identity, quick_identity
from libs.dicom.part10 import file_meta
from libs.dimse import StoreCommand, StoreStatus
from services.edge_gateway.domain import Answer, Instance, SeriesKey, Verdict, judge, without_repeats
from services.edge_gateway.errors import (
    BatchRefused,
    CannotUnderstand,
    DoesNotMatch,
    OutOfResources,
    SpoolDamaged,
)
from services.edge_gateway.segments import Arrival
from services.edge_gateway.spool import Spool
from services.edge_gateway.store import Added, Journal

_FIRST_BYTES: Final = 32 * 1024
_WHOLE_HEADERS: Final = threading.BoundedSemaphore(2)
"""Headers that are read whole at once: those of multi-frame images take much memory while they are read."""
_log = structlog.get_logger(__name__)

Arrived = Callable[[SeriesKey, int, int], None]
"""Is told series, sequence and size of what now waits."""


@dataclass(frozen=True)
class Reception:
    """What receiving needs.

    Attributes:
        spool: where instances go.
        journal: where their entries go.
        arrived: is told of what now waits.
    """

    spool: Spool
    journal: Journal
    arrived: Arrived


class Cloud(Protocol):
    """What takes a batch: the STOW-RS client, or a stand-in with the same contract."""

    async def store(self, batch: Sequence[Instance]) -> Answer:
        """Sends a batch.

        Raises:
            CloudAway: later.
            BatchRefused: not in this form.
            SpoolDamaged: one of the files is not what the journal says.
        """


class ReceivedInstance:
    """An instance on its way into the spool. When ``finish`` returns, it is on the disk.

    The same instance with the same bytes, while it waits, is a success that is sent on once; with different bytes it is
    an entry of its own. Blocking; each association has its own, in its own thread.

    Arguments:
        reception: where it goes.
        command: what the peer says it is.
        calling_ae_title: who sends.

    Raises:
        StoreRefused: with the status to answer; nothing was kept.
    """

    def __init__(self, reception: Reception, command: StoreCommand, calling_ae_title: str) -> None:
        self._reception = reception
        self._command = command
        self._calling_ae_title = calling_ae_title
        self._first = bytearray()
        self._broken = False
        try:
            head = file_meta(
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                transfer_syntax=command.transfer_syntax,
            )
        except InvalidUid as error:
            raise CannotUnderstand(error.reason) from error
        self._head_bytes = len(head)
        if reception.journal.behind:
            raise OutOfResources("the journal of the edge gateway is too slow")
        try:
            self._segment = reception.spool.take()
            try:
                self._draft = self._segment.begin(head)
            except OSError:
                reception.spool.give_up(self._segment)
                raise
        except OSError as error:
            raise _disk_trouble(error) from error

    @property
    def size(self) -> int:
        """Bytes so far, as they lie in the spool."""
        return self._draft.size

    def write(self, part: memoryview, /) -> None:
        """Takes the next bytes of the data set."""
        if len(self._first) < _FIRST_BYTES:
            self._first += part[: _FIRST_BYTES - len(self._first)]
        try:
            self._draft.write(part)
        except OSError as error:
            self._broken = True
            raise _disk_trouble(error) from error
        if self._draft.beyond:
            self._reception.spool.require_room(growing=True)

    def finish(self) -> StoreStatus:
        """Checks what it is, and makes it durable."""
        identity = self._identity()
        if identity.sop_instance_uid != self._command.sop_instance_uid:
            raise DoesNotMatch("the SOP Instance UID of the data set is not that of the command")
        if identity.sop_class_uid != self._command.sop_class_uid:
            raise DoesNotMatch("the SOP Class UID of the data set is not that of the command")
        spool, segment = self._reception.spool, self._segment
        try:
            arrival = self._draft.seal(
                sop_instance_uid=identity.sop_instance_uid,
                sop_class_uid=identity.sop_class_uid,
                transfer_syntax=self._command.transfer_syntax,
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                calling_ae_title=self._calling_ae_title,
                received=time.time(),
            )
        except OSError as error:
            self._broken = True
            raise _disk_trouble(error) from error
        spool.count(arrival.file)
        # In the order of the segment, so before anybody else may write to it.
        self._reception.journal.enter(arrival, lambda added: _entered(self._reception, arrival, added))
        spool.give_back(segment)
        return StoreStatus()

    def abort(self) -> None:
        """Nothing of it stays. A segment that could not be written to is not used on."""
        self._draft.discard()
        spool = self._reception.spool
        (spool.give_up if self._broken else spool.give_back)(self._segment)

    def _identity(self) -> Identity:
        found = quick_identity(self._first, self._command.transfer_syntax, self._draft.size - self._head_bytes)
        if found is not None:
            return found
        try:
            self._draft.flush()
            with _WHOLE_HEADERS, self._reception.spool.mapped(self._segment, self._draft.size) as content:
                header = read_header(content)
        except DicomError as error:
            raise CannotUnderstand(error.reason) from error
        except OSError as error:
            raise _disk_trouble(error) from error
        return Identity(header.sop_instance_uid, header.sop_class_uid, header.study_uid, header.series_uid)


def _disk_trouble(error: OSError) -> OutOfResources:
    return OutOfResources(f"the spool can't be written: {error.strerror}")


def _entered(reception: Reception, arrival: Arrival, added: Added) -> None:
    if added.unneeded:
        reception.spool.release(added.unneeded)
    if added.fate != "known":
        reception.arrived((arrival.study_uid, arrival.series_uid), added.sequence, arrival.size)


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
    """Lets instances leave the spool: the entries first, then the space."""
    if stored:
        crash_point("edge.proven")
        own_files = any(not spool.in_segment(instance) for instance in stored)
        sequences = [instance.sequence for instance in stored]
        await asyncio.wrap_future(journal.delete(sequences, durable=own_files))
        crash_point("edge.forgotten")
        for instance in stored:
            spool.release(instance.file)


async def set_refused(spool: Spool, journal: Journal, batch: Sequence[Instance], reasons: dict[int, str]) -> None:
    """Marks instances that the cloud will not take, and sets them apart, so that they hold no segment."""
    await asyncio.wrap_future(journal.refuse(reasons))
    for instance in batch:
        if instance.sequence not in reasons or not spool.in_segment(instance):
            continue
        try:
            file = await asyncio.to_thread(spool.set_apart, instance)
        except OSError as error:
            _log.warning("a refused instance stays in its segment", sequence=instance.sequence, reason=str(error))
            continue
        moved = await asyncio.wrap_future(journal.move(instance, file))
        spool.release(instance.file if moved else file)


async def retry_refused(journal: Journal, arrived: Arrived) -> int:
    """Lets everything that the cloud refused go again, and says how many that are."""
    revived = await asyncio.wrap_future(journal.retry_refused())
    for series, sequence, size in revived:
        arrived(series, sequence, size)
    return len(revived)


__all__ = [
    "Arrived",
    "Cloud",
    "ReceivedInstance",
    "Reception",
    "forget_stored",
    "forward_batch",
    "retry_refused",
    "set_refused",
]

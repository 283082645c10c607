"""Named points at which a test may have the process end as by a loss of power: nothing is flushed, nobody is told.

``LIGHTBOX_CRASH_AT`` says where: ``NAME``, or ``NAME:N`` for the N-th passage; or ``@FILE``, a file that holds one or
the other. Such a file is looked for at each passage, so that a process that runs can be told, and it is removed before
the crash, so that the process that follows goes on. A file that holds ``note`` ends nothing: the names that are passed
are added to ``FILE.passed``. Without the variable a passage costs one comparison. The variable is an instrument of
tests and no setting; nothing else in ``libs`` reads the environment.
"""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Final, Literal, get_args

VARIABLE: Final = "LIGHTBOX_CRASH_AT"

CrashPoint = Literal[
    # The edge: between a scanner's C-STORE and its answer, and between the cloud's answer and the freed space.
    "edge.written",  # the record is written and not synced
    "edge.synced",  # the record is synced, has no row, and the scanner has no answer
    "edge.entered",  # the row is in the journal
    "edge.proven",  # the cloud has answered and the row is still there
    "edge.forgotten",  # the row is gone and its space is not free yet
    "edge.renewed",  # a segment may be written over and nothing is written yet
    # The ingest gateway: between the first byte of a request and its answer.
    "ingest.part_spooled",  # one part is spooled, others may follow
    "ingest.pack_built",  # a pack is built and not in the object store
    "ingest.pack_stored",  # a pack is in the object store and not announced
    "ingest.announced",  # its event is in Kafka and the sender has no answer
    # Indexing.
    "indexing.packs_read",  # packs are read, nothing is written
    "indexing.written",  # all rows are written, the transaction is not committed
    "indexing.committed",  # the catalog has the rows, the documents are old
    "indexing.document_stored",  # a document is in the object store, the catalog does not know of it
    # Every consumer.
    "consumer.handled",  # a batch is dealt with, its offset is not committed
    # The audit record: at any service, and at its end.
    "audit.spooled",  # a record is in the spool file and not in Kafka
    "audit.published",  # it is in Kafka and still in the spool file
    "audit.appended",  # it is in the chain, the transaction is not committed
    # The outbox.
    "outbox.taken",  # the relay has read the rows
    "outbox.sent",  # their events are in Kafka and the rows are still there
]
CRASH_POINTS: Final[tuple[str, ...]] = get_args(CrashPoint)


class _Watch:
    """What is armed in this process."""

    def __init__(self, armed: str) -> None:
        self._armed = armed
        self._passages: Counter[tuple[str, str]] = Counter()

    def passage(self, name: str) -> None:
        """Ends the process when this is the passage that is meant."""
        armed = self._armed
        file = Path(armed[1:]) if armed.startswith("@") else None
        if file is not None:
            try:
                armed = file.read_text().strip()
            except OSError:
                return
            if armed == "note":
                with Path(f"{file}.passed").open("a") as passed:
                    passed.write(f"{name}\n")
                return
        wanted, _, number = armed.partition(":")
        if name != wanted:
            return
        self._passages[armed, name] += 1
        if self._passages[armed, name] < int(number or 1):
            return
        if file is not None:
            self._passages.clear()
            try:
                file.unlink()
            except FileNotFoundError:
                return  # another process of the service was faster
        os.kill(os.getpid(), signal.SIGKILL)


def _armed() -> _Watch | None:
    armed = os.environ.get(VARIABLE, "")
    if not armed:
        return None
    name, _, number = armed.partition(":")
    if not armed.startswith("@") and (name not in CRASH_POINTS or (number and not number.isdigit())):
        raise ValueError(f"{VARIABLE}={armed} names no crash point; there are {', '.join(CRASH_POINTS)}")
    return _Watch(armed)


_watch: Final = _armed()


def crash_point(name: CrashPoint) -> None:
    """Marks a place where a crash would hurt; ends the process here when ``LIGHTBOX_CRASH_AT`` says so.

    Arguments:
        name: the place.
    """
    if _watch is not None:
        _watch.passage(name)

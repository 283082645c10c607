"""The storage SCU behind ``lightbox send`` and the demo: finds DICOM files and sends their bytes as they are."""

import logging
import os
import socket
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from libs.dicom import DicomError, read_header
from libs.dicom.identifiers import is_uid
from libs.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, read_file_meta

MOST_CONTEXTS: Final = 128
"""Presentation contexts in one association: their identifiers are the odd numbers below 256 (PS3.8 9.3.2.2)."""

_HEAD: Final = 64 * 1024
_MAXIMUM_PDU: Final = 128 * 1024
_DIRECTORY: Final = "1.2.840.10008.1.3.10"  # a DICOMDIR lists files and is none to be stored
_LOST: Final = -1
_NOT_ACCEPTED: Final = -2
_NO_ASSOCIATION: Final = -3
_WORDS: Final = {
    _LOST: "the connection broke before the answer",
    _NOT_ACCEPTED: "the receiver does not take this kind of object in this encoding",
    _NO_ASSOCIATION: "no association could be made",
    0x0110: "the receiver could not process it",
    0x0117: "its SOP Instance UID is not valid",
    0x0122: "the receiver does not know this kind of object",
    0x0124: "the receiver does not allow it",
}


class NotConnected(Exception):
    """No association can be made; the text says why."""


@dataclass(frozen=True)
class DicomFile:
    """A Part 10 file that can be sent.

    Attributes:
        path: where it is.
        sop_class_uid: (0008,0016).
        sop_instance_uid: (0008,0018).
        transfer_syntax: (0002,0010).
        size: bytes of the file.
        offset: bytes from its start to the data set.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    size: int
    offset: int

    @property
    def context(self) -> tuple[str, str]:
        """What has to be negotiated for it: SOP class and transfer syntax."""
        return self.sop_class_uid, self.transfer_syntax


@dataclass(frozen=True)
class Peer:
    """Whom to send to.

    Attributes:
        host: name or address.
        port: TCP port.
        called: its AE title.
        calling: ours.
    """

    host: str
    port: int
    called: str
    calling: str = "LIGHTBOX"


@dataclass(frozen=True)
class Failure:
    """A file that was not taken.

    Attributes:
        path: which.
        status: the DIMSE status (PS3.4 table B.2-1), negative when there was no answer.
        reason: in words.
    """

    path: Path
    status: int
    reason: str


@dataclass
class Report:
    """How it went.

    Attributes:
        sent: files that were taken.
        bytes: of them.
        seconds: how long it took.
        warnings: files that were taken with a warning status.
        failures: files that were not taken.
    """

    sent: int = 0
    bytes: int = 0
    seconds: float = 0.0
    warnings: int = 0
    failures: list[Failure] = field(default_factory=list)


Progress = Callable[[DicomFile, bool], None]
"""Is told of each file that was dealt with, and whether it was taken."""


def find_files(paths: Iterable[Path]) -> tuple[list[DicomFile], list[Path]]:
    """The DICOM files among files and, recursively, folders; and the files that are none.

    Arguments:
        paths: files and folders.

    Raises:
        FileNotFoundError: one of the paths does not exist.
    """
    found: list[DicomFile] = []
    others: list[Path] = []
    for path in _walk(paths):
        file = _look_at(path)
        if file is None:
            others.append(path)
        else:
            found.append(file)
    return found, others


def _walk(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders.sort()
                yield from (one for name in sorted(names) if (one := Path(folder, name)).is_file())
        else:
            yield path


def _look_at(path: Path) -> DicomFile | None:
    """What a file says of itself: the data set's own identifiers; those of the file meta when it can't be read."""
    try:
        with path.open("rb") as file:
            meta = read_file_meta(file.read(_HEAD))
    except (DicomError, OSError):
        return None
    sop_class, instance = meta.sop_class_uid, meta.sop_instance_uid
    with suppress(DicomError, OSError):
        header = read_header(path)
        sop_class, instance = header.sop_class_uid, header.sop_instance_uid
    if sop_class == _DIRECTORY or not (is_uid(sop_class) and is_uid(instance) and is_uid(meta.transfer_syntax)):
        return None
    return DicomFile(path, sop_class, instance, meta.transfer_syntax, path.stat().st_size, meta.dataset_offset)


def plan(files: Sequence[DicomFile], parallel: int) -> list[list[DicomFile]]:
    """Divides files among associations, each with 128 presentation contexts at most, in the order given.

    Arguments:
        files: what to send.
        parallel: how many associations at once; each gets a stretch of the files.
    """
    loads: list[list[DicomFile]] = []
    share = -(-len(files) // max(1, parallel))
    for start in range(0, len(files), max(1, share)):
        load: list[DicomFile] = []
        contexts: set[tuple[str, str]] = set()
        for file in files[start : start + share]:
            if file.context not in contexts and len(contexts) == MOST_CONTEXTS:
                loads.append(load)
                load, contexts = [], set()
            contexts.add(file.context)
            load.append(file)
        loads.append(load)
    return loads


def send_files(
    files: Sequence[DicomFile], peer: Peer, *, parallel: int = 1, progress: Progress = lambda _file, _taken: None
) -> Report:
    """Sends files by C-STORE, their data sets unchanged. A connection that breaks is made again once.

    Arguments:
        files: what to send.
        peer: to whom.
        parallel: how many associations at once.
        progress: is told of each file, from several threads but never at once.

    Raises:
        NotConnected: not even the first association could be made.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    report = Report()
    lock = threading.Lock()

    def done(file: DicomFile, status: int, comment: str = "") -> None:
        with lock:
            taken = status == 0x0000 or 0xB000 <= status <= 0xBFFF
            if taken:
                report.sent += 1
                report.bytes += file.size
                report.warnings += status != 0x0000
            else:
                report.failures.append(Failure(file.path, status, in_words(status, comment)))
            progress(file, taken)

    began = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor(max(1, parallel)) as pool:
        warnings.simplefilter("ignore")
        for error in pool.map(lambda load: _send_load(load, peer, done), plan(files, parallel)):
            if error is not None and not report.sent and len(report.failures) == len(files):
                raise NotConnected(error)
    report.seconds = time.monotonic() - began
    return report


def _send_load(load: Sequence[DicomFile], peer: Peer, done: Callable[..., None]) -> str | None:
    """Sends one association's files; the reason when no association could be made."""
    left = list(load)
    for _ in range(2):
        if not left:
            break
        association, connected = _associate(left, peer)
        if not association.is_established:
            for file in left:
                done(file, _NO_ASSOCIATION)
            return _why_not(association, peer, connected=connected)
        left = _send_over(association, left, done)
    for file in left:
        done(file, _LOST)
    return None


def _send_over(association: Association, files: list[DicomFile], done: Callable[..., None]) -> list[DicomFile]:
    """Sends until the connection breaks, and gives what was not answered."""
    contexts = {
        (str(context.abstract_syntax), str(context.transfer_syntax[0])): int(context.context_id or 0)
        for context in association.accepted_contexts
    }
    for number, file in enumerate(files):
        if not association.is_established:
            return files[number:]
        context = contexts.get(file.context)
        if context is None:
            done(file, _NOT_ACCEPTED)
            continue
        answer = _store(association, context, file, number % 65535 + 1)
        if answer is None or answer.Status is None:
            association.abort()
            return files[number:]
        done(file, int(answer.Status), str(answer.ErrorComment or ""))
    association.release()
    return []


def _store(association: Association, context: int, file: DicomFile, message: int) -> C_STORE | None:
    """One C-STORE of the data set as it lies in the file; none when no answer came.

    ``Association.send_c_store`` takes the identifiers of the file meta information, which may be wrong, or encodes the
    data set anew; hence the steps that it takes are taken here.
    """
    request = C_STORE()
    request.MessageID = message
    request.Priority = 2
    request.AffectedSOPClassUID = UID(file.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(file.sop_instance_uid)
    request._dataset_path = (file.path, file.offset)  # noqa: SLF001
    reactor = association._reactor_checkpoint  # noqa: SLF001
    reactor.clear()
    while not association._is_paused:  # noqa: SLF001
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(request, context)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        reactor.set()
    return answer if isinstance(answer, C_STORE) else None


def _associate(files: Sequence[DicomFile], peer: Peer) -> tuple[Association, bool]:
    """Asks for an association, and says whether there was a connection at all."""
    connected = threading.Event()

    def on_connection(event: evt.Event) -> None:
        """Nagle's algorithm would wait for acknowledgements between the two PDUs of each message."""
        connected.set()
        connection = getattr(event.assoc.dul.socket, "socket", None)
        if isinstance(connection, socket.socket):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    entity = AE(ae_title=peer.calling)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = _MAXIMUM_PDU
    entity.connection_timeout = 10
    entity.acse_timeout = 15
    entity.dimse_timeout = 120
    for sop_class, transfer_syntax in dict.fromkeys(file.context for file in files):
        entity.add_requested_context(sop_class, transfer_syntax)
    association = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.called,
        max_pdu=_MAXIMUM_PDU,
        evt_handlers=[(evt.EVT_CONN_OPEN, on_connection)],
    )
    return association, connected.is_set()


def _why_not(association: Association, peer: Peer, *, connected: bool) -> str:
    where = f"{peer.called} at {peer.host}:{peer.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        diagnostic = int(getattr(answer, "diagnostic", 0) or 0), int(getattr(answer, "result_source", 0) or 0)
        words = {
            (3, 1): f"it does not know the calling AE title {peer.calling}",
            (7, 1): f"it is not called {peer.called}",
            (2, 3): "it has too many associations open",
        }
        return f"{where} rejected the association: {words.get(diagnostic, 'it gave no reason')}"
    if connected:
        return f"{where} does not answer, or ended the association at once"
    return f"{where} can't be reached"


def in_words(status: int, comment: str = "") -> str:
    """A C-STORE status in plain words (PS3.4 table B.2-1, PS3.7 annex C), with the receiver's comment."""
    if status in _WORDS:
        words = _WORDS[status]
    elif 0xA700 <= status <= 0xA7FF:
        words = "the receiver is out of resources; send it again later"
    elif 0xA900 <= status <= 0xA9FF:
        words = "the data set is not what its identifiers say"
    elif 0xC000 <= status <= 0xCFFF:
        words = "the receiver can't understand it"
    else:
        words = "the receiver refused it"
    number = f" ({struct.pack('>H', status).hex().upper()})" if status >= 0 else ""
    return f"{words}{number}: {comment}" if comment else f"{words}{number}"

"""One instance on its way in by DIMSE: filled in the thread of its association, stored on the service's event loop."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from prometheus_client import Counter as Metric

from libs.crash import crash_point
from libs.dicom import InvalidUid
from libs.dicom.part10 import file_meta
from libs.dimse import Peer, StoreCommand, StoreRefused, StoreStatus
from libs.events import AuditUnavailable
from libs.web.problems import Problem
from services.ingest_gateway.domain import (
    CANNOT_UNDERSTAND,
    NO_RESOURCES,
    PROCESSING_FAILURE,
    Outcome,
    Sender,
    SpooledPart,
)
from services.ingest_gateway.domain_nodes import Node, store_status
from services.ingest_gateway.spool import OpenPart, RequestSpool

OPEN_SECONDS: Final = 15.0
"""What the event loop may take to open the spool, or to say who somebody is."""
_WRITE_SIZE: Final = 1 << 20
"""Bytes that are gathered before they are hashed, written and counted."""
_CHECK_SIZE: Final = 64 << 20
"""Bytes of an instance between two looks at the disk's free space."""
_SLOWEST: Final = 2 << 20
"""Bytes a second at which storing a large instance still makes progress."""
ANSWERED = Metric("lightbox_dimse_stores_total", "C-STORE requests answered", ["tenant", "status"])
_BYTES = Metric("lightbox_dimse_received_bytes_total", "Bytes of data sets received", ["tenant"])
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Admitted:
    """An association that was let in.

    Attributes:
        node: who it is.
        fingerprint: of its certificate.
        sender: the same as the audit record names it.
    """

    node: Node
    fingerprint: bytes
    sender: Sender


class BytesUnderWay:
    """Counts what was received of each tenant and is not dealt with yet. Any thread may call it.

    Arguments:
        most: bytes of one tenant.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()

    def take(self, tenant: str, size: int) -> None:
        """Counts bytes in.

        Raises:
            StoreRefused: there would be too many.
        """
        with self._lock:
            if self._of[tenant] + size > self._most:
                raise StoreRefused(NO_RESOURCES, "too much of this clinic is under way")
            self._of[tenant] += size

    def give_back(self, tenant: str, size: int) -> None:
        """Counts bytes out."""
        with self._lock:
            self._of[tenant] -= size
            if self._of[tenant] <= 0:
                del self._of[tenant]


class Bridge:
    """From the threads of associations to the event loop.

    Arguments:
        loop: the service's.
        take: opens the spool for an instance, waits until it is whole, and stores it.
        most_bytes: what of one tenant may be under way.
        answer_timeout: seconds that storing a small instance may take.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: "Callable[[ReceivedInstance], Coroutine[Any, Any, Outcome]]",
        *,
        most_bytes: int,
        answer_timeout: float,
    ) -> None:
        self.loop = loop
        self.take = take
        self.bytes_under_way = BytesUnderWay(most_bytes)
        self.answer_timeout = answer_timeout


class ReceivedInstance:
    """The instance of one C-STORE (``libs.dimse.Receiving``).

    Arguments:
        bridge: to the event loop.
        admitted: the association.
        peer: who sends.
        command: the request.
    """

    def __init__(self, bridge: Bridge, admitted: Admitted, peer: Peer, command: StoreCommand) -> None:
        self.admitted = admitted
        self.peer = peer
        self._bridge = bridge
        self._command = command
        self._counted = 0
        self._unchecked = 0
        self._size = 0
        self._opened: Future[RequestSpool] = Future()

    def open(self) -> None:
        """Waits for a place in the spool.

        Raises:
            StoreRefused: there is none, or the sender may not store any more.
        """
        try:
            head = file_meta(
                sop_class_uid=self._command.sop_class_uid,
                sop_instance_uid=self._command.sop_instance_uid,
                transfer_syntax=self._command.transfer_syntax,
            )
        except InvalidUid as error:
            raise StoreRefused(CANNOT_UNDERSTAND, error.reason) from error
        self._stored = asyncio.run_coroutine_threadsafe(self._bridge.take(self), self._bridge.loop)
        try:
            self._request = self._opened.result(OPEN_SECONDS)
        except (Exception, CancelledError) as error:
            self._stored.cancel()
            raise _refused(error) from error
        self._part: OpenPart = self._request.new_part()
        self._gathered = bytearray(head)

    def opened_with(self, request: RequestSpool) -> "asyncio.Future[SpooledPart]":
        """On the event loop: there is a place. Gives what will be set once the instance is whole."""
        self._whole: asyncio.Future[SpooledPart] = self._bridge.loop.create_future()
        self._opened.set_result(request)
        return self._whole

    def not_opened(self, error: BaseException) -> None:
        """On the event loop: it went wrong; tells the thread if that still waits for a place."""
        if not self._opened.done():
            self._opened.set_exception(error if isinstance(error, Exception) else CancelledError())

    def write(self, part: memoryview, /) -> None:
        """Takes the next bytes of the data set."""
        self._size += len(part)
        self._gathered += part
        if len(self._gathered) >= _WRITE_SIZE:
            self._flush()

    def _flush(self) -> None:
        size, gathered = len(self._gathered), bytes(self._gathered)
        self._gathered.clear()
        self._bridge.bytes_under_way.take(self.admitted.node.tenant, size)
        self._counted += size
        self._unchecked += size
        try:
            if self._unchecked >= _CHECK_SIZE:
                self._unchecked = 0
                self._request.require_space()
            if self._part.takes(size):
                self._part.write(gathered)
        except (OSError, Problem) as error:
            raise _refused(error) from error

    def finish(self) -> StoreStatus:
        """Stores it, and answers once it is durable."""
        tenant = self.admitted.node.tenant
        _BYTES.labels(tenant).inc(self._size)
        try:
            outcome = self._store()
            status, comment = store_status(outcome)
            if outcome.failure is not None:
                raise StoreRefused(status, comment)
        except (Exception, CancelledError) as error:
            refusal = _refused(error)
            ANSWERED.labels(tenant, f"{refusal.status:04X}").inc()
            raise refusal from error
        ANSWERED.labels(tenant, f"{status:04X}").inc()
        self._let_go()
        return StoreStatus(status, comment)

    def _store(self) -> Outcome:
        self._flush()
        announced = self._command.sop_class_uid, self._command.sop_instance_uid
        whole = replace(self._part.finish(), announced=announced)
        crash_point("ingest.part_spooled")
        self._bridge.loop.call_soon_threadsafe(self._settle, whole)
        return self._stored.result(self._bridge.answer_timeout + self._size / _SLOWEST)

    def _settle(self, whole: SpooledPart) -> None:
        if not self._whole.done():
            self._whole.set_result(whole)

    def abort(self) -> None:
        """Nothing of it stays."""
        self._stored.cancel()
        self._part.close()
        self._let_go()

    def _let_go(self) -> None:
        self._bridge.bytes_under_way.give_back(self.admitted.node.tenant, self._counted)
        self._counted = 0


def _refused(error: BaseException) -> StoreRefused:
    """What the sender is told of an error."""
    if isinstance(error, StoreRefused):
        return error
    if isinstance(error, TimeoutError | CancelledError):
        return StoreRefused(NO_RESOURCES, "it could not be stored in time")
    if isinstance(error, AuditUnavailable):
        return StoreRefused(NO_RESOURCES, "it can't be recorded at the moment")
    if isinstance(error, Problem) and error.status == 503:
        return StoreRefused(NO_RESOURCES, error.detail or error.title)
    if isinstance(error, OSError):
        return StoreRefused(NO_RESOURCES, f"the spool can't be used: {error.strerror}")
    _log.error("unexpected error in a C-STORE", exc_info=error)
    return StoreRefused(PROCESSING_FAILURE, "an error that was logged")

"""The storage and verification SCP: DIMSE in and out only (PS3.4 annexes A and B)."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, cast

import structlog
from prometheus_client import Counter, Gauge
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE

from libs.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from services.edge_gateway.errors import OutOfResources, StoreRefused
from services.edge_gateway.handlers import StoreRequest
from services.edge_gateway.settings import Settings
from services.edge_gateway.upper_layer import MAXIMUM_PDU, BoundedRequestHandler, BoundedServer, Limits

_RECEIVED = Counter("lightbox_edge_received_total", "C-STORE requests answered", ["status"])
_RECEIVED_BYTES = Counter("lightbox_edge_received_bytes_total", "Bytes of the data sets that were taken")
_ASSOCIATIONS = Gauge("lightbox_edge_associations", "Associations that are open")
_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_LONGEST_COMMENT: Final = 64
_GRACE_SECONDS: Final = 5.0
_VERIFICATION: Final = "1.2.840.10008.1.1"
_VERIFICATION_SYNTAXES: Final = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"]
_log = structlog.get_logger(__name__)

Receive = Callable[[StoreRequest], None]
"""Makes an instance durable, or raises StoreRefused."""


class StorageListener:
    """Listens for associations and hands over what is stored.

    Arguments:
        settings: AE title, address, limits.
        receive: called in the association's thread for each C-STORE.
    """

    def __init__(self, settings: Settings, receive: Receive) -> None:
        self._settings = settings
        self._receive = receive
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to listen.

        Raises:
            OSError: the port is taken.
        """
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        _config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        entity = _application_entity(self._settings)
        self._server = entity.make_server(
            (self._settings.dimse_host, self._settings.dimse_port),
            ae_title=self._settings.ae_title,
            evt_handlers=[
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_C_ECHO, _on_echo),
                (evt.EVT_REJECTED, _on_rejected),
            ],
            server_class=BoundedServer,
            request_handler=BoundedRequestHandler,
            limits=Limits(
                message=self._settings.maximum_instance_bytes,
                receiving=self._settings.maximum_receiving_bytes,
                negotiation=self._settings.negotiation_timeout,
            ),
        )
        # Not among the entity's own servers: ``shutdown`` looks itself up there.
        entity._servers.append(self._server)  # noqa: SLF001
        self._thread = threading.Thread(target=self._server.serve_forever, name="dimse", daemon=True)
        self._thread.start()
        _ASSOCIATIONS.set_function(lambda: self.associations)
        _log.info("listening", ae_title=self._settings.ae_title, port=self.port)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1]) if self._server else 0

    @property
    def associations(self) -> int:
        """How many associations are open."""
        return len(self._server.active_associations) if self._server else 0

    @property
    def listening(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stops listening, gives open associations a moment to end, then aborts them."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        deadline = time.monotonic() + _GRACE_SECONDS
        while server.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in server.active_associations:
            association.abort()

    def _on_store(self, event: evt.Event) -> Dataset | int:
        """One C-STORE: a status (PS3.4 table B.2-1), never an exception."""
        request = cast("C_STORE", event.request)
        raw = cast("BytesIO", request.DataSet).getbuffer()
        try:
            self._receive(
                StoreRequest(
                    sop_class_uid=str(request.AffectedSOPClassUID),
                    sop_instance_uid=str(request.AffectedSOPInstanceUID),
                    transfer_syntax=str(event.context.transfer_syntax),
                    data_set=raw,
                    calling_ae_title=str(event.assoc.requestor.ae_title).strip(),
                )
            )
        except StoreRefused as refusal:
            return _refusal(event, refusal.status, refusal.reason)
        except (OSError, sqlite3.Error) as error:
            return _refusal(event, OutOfResources.status, f"the spool can't be written: {error}")
        except Exception as error:
            _log.error("unexpected error in a C-STORE", exc_info=error)
            return _refusal(event, _PROCESSING_FAILURE, "an error that was logged")
        _RECEIVED.labels("0000").inc()
        _RECEIVED_BYTES.inc(len(raw))
        return _SUCCESS


def _application_entity(settings: Settings) -> Any:
    entity = AE(ae_title=settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = MAXIMUM_PDU
    entity.maximum_associations = settings.maximum_associations
    entity.acse_timeout = settings.negotiation_timeout
    entity.dimse_timeout = 60
    entity.network_timeout = settings.network_timeout
    entity.require_called_aet = not settings.accept_any_called_ae_title
    entity.require_calling_aet = list(settings.calling_ae_titles)
    entity.add_supported_context(_VERIFICATION, _VERIFICATION_SYNTAXES)
    return entity


def _refusal(event: evt.Event, status: int, reason: str) -> Dataset:
    _RECEIVED.labels(f"{status:04X}").inc()
    _log.warning(
        "refused a C-STORE",
        status=f"{status:04X}",
        reason=reason,
        calling_ae_title=str(event.assoc.requestor.ae_title).strip(),
    )
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = reason[:_LONGEST_COMMENT]
    return answer


def _on_echo(_: evt.Event) -> int:
    return _SUCCESS


def _on_rejected(event: evt.Event) -> None:
    _log.warning(
        "rejected an association",
        calling_ae_title=str(getattr(event.assoc.requestor.primitive, "calling_ae_title", "")).strip(),
        called_ae_title=str(getattr(event.assoc.requestor.primitive, "called_ae_title", "")).strip(),
    )

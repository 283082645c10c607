"""The storage and verification SCP: DIMSE in and out only (PS3.4 annexes A and B)."""

import structlog
from prometheus_client import Counter, Gauge

from libs.dimse import Acceptor, AssociationRejected, Limits, Peer, Receiving, StoreCommand, StoreRefused, StoreStatus
from services.edge_gateway.handlers import ReceivedInstance, Reception
from services.edge_gateway.settings import Settings

_RECEIVED = Counter("lightbox_edge_received_total", "C-STORE requests answered", ["status"])
_RECEIVED_BYTES = Counter("lightbox_edge_received_bytes_total", "Bytes of the instances that were taken")
_ASSOCIATIONS = Gauge("lightbox_edge_associations", "Associations that are open")
_SUCCESSES = _RECEIVED.labels("0000")
_PROCESSING_FAILURE = 0x0110
_log = structlog.get_logger(__name__)


class StorageListener:
    """Listens for associations and hands over what is stored.

    Arguments:
        settings: AE title, address, limits.
        reception: where instances go.
    """

    def __init__(self, settings: Settings, reception: Reception) -> None:
        self._settings = settings
        self._acceptor = Acceptor(
            Limits(
                host=settings.dimse_host,
                port=settings.dimse_port,
                associations=settings.maximum_associations,
                associations_per_peer=settings.associations_per_peer,
                data_set_bytes=settings.maximum_instance_bytes,
                negotiation_seconds=settings.negotiation_timeout,
                idle_seconds=settings.network_timeout,
                pause_seconds=min(30.0, settings.network_timeout),
            ),
            admit=self._admit,
            store=_Store(reception),
        )

    def start(self) -> None:
        """Begins to listen.

        Raises:
            OSError: the port is taken.
        """
        self._acceptor.start()
        _ASSOCIATIONS.set_function(lambda: self.associations)
        _log.info("listening", ae_title=self._settings.ae_title, port=self.port)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._acceptor.port

    @property
    def associations(self) -> int:
        """How many associations are open."""
        return self._acceptor.associations

    @property
    def listening(self) -> bool:
        """Whether it listens."""
        return self._acceptor.listening

    def stop(self) -> None:
        """Stops listening, gives open associations a moment to end, then aborts them."""
        self._acceptor.stop()

    def _admit(self, peer: Peer) -> None:
        settings = self._settings
        if not settings.accept_any_called_ae_title and peer.called_ae_title != settings.ae_title:
            raise AssociationRejected.called_ae_title_not_recognised()
        if settings.calling_ae_titles and peer.calling_ae_title not in settings.calling_ae_titles:
            raise AssociationRejected.calling_ae_title_not_recognised()


class _Store:
    """What the acceptor gives instances to."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    def begin(self, _: object, peer: Peer, command: StoreCommand, /) -> Receiving:
        return _Counted(self._reception, command, peer.calling_ae_title)


class _Counted(ReceivedInstance):
    """An instance whose fate is counted."""

    def __init__(self, reception: Reception, command: StoreCommand, calling_ae_title: str) -> None:
        try:
            super().__init__(reception, command, calling_ae_title)
        except Exception as error:
            _count_failure(error)
            raise

    def write(self, part: memoryview, /) -> None:
        try:
            super().write(part)
        except Exception as error:
            _count_failure(error)
            raise

    def finish(self) -> StoreStatus:
        try:
            answer = super().finish()
        except Exception as error:
            _count_failure(error)
            raise
        _SUCCESSES.inc()
        _RECEIVED_BYTES.inc(self.size)
        return answer


def _count_failure(error: Exception) -> None:
    status = error.status if isinstance(error, StoreRefused) else _PROCESSING_FAILURE
    _RECEIVED.labels(f"{status:04X}").inc()

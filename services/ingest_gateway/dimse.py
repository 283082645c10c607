"""The cloud's own DICOM door: verification and storage over TLS (PS3.4 annexes A and B, PS3.15 section B.12).

The acceptor calls from the threads of its associations; what it asks is done on the service's event loop, within
bounded times, by the use case that STOW-RS has. Each instance is a pack of its own and is answered once it is durable.
"""

import asyncio
import hashlib
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, Final

import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from libs.dimse import Acceptor, AssociationRejected, Limits, Peer, Receiving, StoreCommand, StoreRefused
from libs.events import AuditUnavailable, Throttle
from libs.tenancy import SYSTEM_TENANT
from services.ingest_gateway import handlers
from services.ingest_gateway.domain import NO_RESOURCES, Outcome, Sender
from services.ingest_gateway.domain_nodes import (
    NODES_AWAY,
    NOT_AUTHORISED,
    TOO_MANY,
    UNKNOWN,
    Node,
    Refusal,
    handshake_refusal,
    plain_address,
)
from services.ingest_gateway.nodes import Nodes, NodesAway
from services.ingest_gateway.receiving import ANSWERED, OPEN_SECONDS, Admitted, Bridge, ReceivedInstance
from services.ingest_gateway.resources import Resources
from services.ingest_gateway.settings import Settings
from services.ingest_gateway.tls import server_context, stamp

_RENEW_SECONDS: Final = 60.0
_HUNG_SECONDS: Final = 5.0
_ASSOCIATIONS = Gauge("lightbox_dimse_associations", "Associations that are open", ["tenant"])
_REFUSED = Metric("lightbox_dimse_refused_total", "Associations and TLS handshakes refused", ["tenant"])
_log = structlog.get_logger(__name__)


class DicomDoor:
    """Listens for DIMSE over TLS.

    Arguments:
        settings: where it listens, what it shows, whom it trusts.
        resources: what the service works with.
    """

    def __init__(self, settings: Settings, resources: Resources) -> None:
        if settings.dimse_port is None or not (settings.dimse_certificate and settings.dimse_key and settings.dimse_ca):
            raise ValueError("the DICOM door is not configured")
        self._files = settings.dimse_certificate, settings.dimse_key, settings.dimse_ca
        self._settings = settings
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._nodes = Nodes(
            resources.engine,
            timeout=settings.lookup_timeout,
            seconds=settings.dimse_node_seconds,
            grace=settings.dimse_node_grace,
        )
        self._open: Counter[str] = Counter()
        # Of each tenant, so that strangers, who count as the operators', can't hide what a clinic should read.
        self._noise: dict[str, Throttle] = {}
        self._bridge = Bridge(
            self._loop,
            self._take,
            most_bytes=settings.dimse_bytes_per_tenant,
            answer_timeout=settings.dimse_answer_timeout,
        )
        self._stamp = stamp(*self._files)
        self._acceptor = Acceptor(
            Limits(
                host=settings.dimse_host,
                port=settings.dimse_port,
                associations=settings.dimse_associations,
                associations_per_peer=settings.dimse_associations,  # a clinic is one address; its tenant is bounded
                data_set_bytes=settings.max_part,
                negotiation_seconds=settings.dimse_negotiation_timeout,
                idle_seconds=settings.dimse_idle_timeout,
                pause_seconds=min(30.0, settings.dimse_idle_timeout),
            ),
            admit=self._admit,
            store=self,
            tls=server_context(*self._files),
            over=self._over,
            insecure=self._insecure,
        )

    def start(self) -> None:
        """Begins to listen.

        Raises:
            OSError: the address or port can't be had.
        """
        self._acceptor.start()
        _log.info("the DICOM door is open", port=self.port)

    async def stop(self) -> None:
        """Stops listening; open associations have a moment to end."""
        await asyncio.to_thread(self._acceptor.stop)

    async def renew(self) -> None:
        """Looks for new certificates until it is cancelled: those of the door, and of the authorities that count."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                self.take_new_certificates()
            except OSError as error:
                _log.error("new certificates of the DICOM door can't be used; the old ones stay", error=repr(error))

    def take_new_certificates(self) -> bool:
        """Uses the certificates anew when their files have changed, from the next connection on.

        Returns:
            whether they had.

        Raises:
            OSError: they can't be used.
        """
        found = stamp(*self._files)
        if found == self._stamp:
            return False
        self._acceptor.renew_tls(server_context(*self._files))
        self._stamp = found
        _log.info("the DICOM door has new certificates")
        return True

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._acceptor.port

    async def check(self) -> None:
        """Raises when it does not listen."""
        if not self._acceptor.listening:
            raise OSError("the DICOM door does not listen")

    # from here on: called by the acceptor, in threads of its own ---------------------------------------------------

    def begin(self, context: Any, peer: Peer, command: StoreCommand, /) -> Receiving:
        """A C-STORE request has come (``libs.dimse.Store``)."""
        admitted: Admitted = context
        instance = ReceivedInstance(self._bridge, admitted, peer, command)
        try:
            instance.open()
        except StoreRefused as refusal:
            ANSWERED.labels(admitted.node.tenant, f"{refusal.status:04X}").inc()
            raise
        return instance

    def _admit(self, peer: Peer) -> Admitted:
        asked = asyncio.run_coroutine_threadsafe(self._decide_in_time(peer), self._loop)
        try:
            return asked.result(OPEN_SECONDS + _HUNG_SECONDS)
        except (TimeoutError, CancelledError, AuditUnavailable) as error:
            asked.cancel()
            raise _rejection(NODES_AWAY) from error

    def _over(self, context: Any) -> None:
        self._loop.call_soon_threadsafe(self._leave, context)

    def _insecure(self, address: str, reason: str) -> None:
        words = handshake_refusal(reason)
        if words is not None:
            who = _unknown_sender(plain_address(address), "TLS")
            asyncio.run_coroutine_threadsafe(self._refuse(who, words), self._loop)

    # from here on: on the event loop -------------------------------------------------------------------------------

    async def _decide_in_time(self, peer: Peer) -> Admitted:
        # The time-out is here and not in the waiting thread: nobody is counted in of whom nobody hears any more.
        async with asyncio.timeout(OPEN_SECONDS):
            return await self._decide(peer)

    async def _decide(self, peer: Peer) -> Admitted:
        address = plain_address(peer.address)
        resource = f"A-ASSOCIATE from {peer.calling_ae_title} to {peer.called_ae_title}"
        fingerprint = hashlib.sha256(peer.certificate or b"").digest()
        try:
            node = await self._nodes.find(fingerprint, peer.called_ae_title)
        except NodesAway:
            _log.warning("an association was put off", peer=address, reason=NODES_AWAY.words)
            raise _rejection(NODES_AWAY) from None
        if node is None:
            words = f"{UNKNOWN.words}: {fingerprint.hex()}"
            await self._refuse(_unknown_sender(address, resource), words)
            raise _rejection(UNKNOWN)
        sender = _sender(node, peer.calling_ae_title, address, resource)
        refusal = node.refusal(peer.calling_ae_title, address)
        if refusal is None and self._open[node.tenant] >= self._settings.dimse_associations_per_tenant:
            refusal = TOO_MANY
        if refusal is not None:
            await self._refuse(sender, refusal.words)
            raise _rejection(refusal)
        self._open[node.tenant] += 1
        _ASSOCIATIONS.labels(node.tenant).set(self._open[node.tenant])
        stored_by = f"C-STORE from {peer.calling_ae_title} to {peer.called_ae_title}"
        return Admitted(node, fingerprint, replace(sender, resource=stored_by))

    async def _refuse(self, sender: Sender, words: str) -> None:
        _REFUSED.labels(sender.tenant).inc()
        noise = self._noise.setdefault(sender.tenant, Throttle(size=1024, most=60))
        held_back = noise.admit(f"{sender.address} {words}", time.monotonic())
        if held_back is not None:
            _log.warning("refused at the DICOM door", tenant=sender.tenant, peer=sender.address, reason=words)
            more = f" ({held_back} more before)" if held_back else ""
            await handlers.refuse_association(self._resources.audit, sender, f"{words}{more}")

    def _leave(self, admitted: Admitted) -> None:
        tenant = admitted.node.tenant
        self._open[tenant] -= 1
        _ASSOCIATIONS.labels(tenant).set(self._open[tenant])

    async def _take(self, instance: ReceivedInstance) -> Outcome:
        """Opens the spool for an instance, waits until it is whole, and stores it."""
        resources, admitted = self._resources, instance.admitted
        tenant = admitted.node.tenant
        try:
            await self._require_still_admitted(admitted, instance.peer)
            async with resources.spool.request(0, tenant) as request:
                whole = instance.opened_with(request)
                request.add_part(await whole)
                rules = await resources.storing.rules.of(tenant)
                async with resources.admission.turn(tenant, rules.requests_at_once):
                    (outcome,) = await handlers.store_instances(request, admitted.sender, None, resources.storing)
                return outcome
        except BaseException as error:
            instance.not_opened(error)
            raise

    async def _require_still_admitted(self, admitted: Admitted, peer: Peer) -> None:
        """Whoever was let in may have been locked out since.

        Raises:
            StoreRefused: that is so.
        """
        try:
            node = await self._nodes.find(admitted.fingerprint, peer.called_ae_title)
        except NodesAway:
            raise StoreRefused(NO_RESOURCES, NODES_AWAY.words) from None
        if node is None or node.tenant != admitted.node.tenant:
            refusal: Refusal | None = UNKNOWN
        else:
            refusal = node.refusal(peer.calling_ae_title, peer.address)
        if refusal is not None:
            await self._refuse(admitted.sender, refusal.words)
            raise StoreRefused(NOT_AUTHORISED, refusal.words)


def _rejection(refusal: Refusal) -> AssociationRejected:
    return AssociationRejected(refusal.result, refusal.source, refusal.reason, refusal.words)


def _sender(node: Node, calling: str, address: str, resource: str) -> Sender:
    return Sender(
        tenant=node.tenant,
        subject=f"node:{node.name}",
        name=calling,
        is_person=False,
        address=address,
        resource=resource,
    )


def _unknown_sender(address: str, resource: str) -> Sender:
    return Sender(
        tenant=SYSTEM_TENANT, subject="anonymous", name="", is_person=False, address=address, resource=resource
    )

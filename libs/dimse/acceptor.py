"""The acceptor: listens, keeps count of who is connected, and gives each association a thread."""

import select
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final

import structlog

from libs.dimse.association import Association
from libs.dimse.contract import Admit, HandOver, Insecure, Limits, Over, Store
from libs.dimse.errors import AssociationRejected, InvalidPdu
from libs.dimse.pdu import parse_associate_request
from libs.dimse.wire import Connection, peek_associate_request

_BACKLOG: Final = 256
_SPARE_CONNECTIONS: Final = 64
_log = structlog.get_logger(__name__)


class _Visitor:
    """A connection, from its beginning to its end."""

    def __init__(self, connected: socket.socket, address: tuple[Any, ...]) -> None:
        self.socket = connected
        self.address = address
        self.host = str(address[0])
        self.began = time.monotonic()
        self.connection: Connection | None = None
        self.established = False
        self.dismissed = False

    def dismiss(self) -> None:
        self.dismissed = True
        if self.connection is not None:
            self.connection.interrupt()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)


class Acceptor:
    """Accepts associations for verification and storage.

    Arguments:
        limits: where it listens, and what peers may do.
        admit: called for each complete association request.
        store: keeps what is received.
        tls: with it, connections begin with a TLS handshake.
        hand_over: takes the connections whose association request proposes one of ``further``, with the request
            unread; plain TCP only.
        further: the SOP classes that whoever is behind ``hand_over`` serves besides storage and verification. What is
            proposed beyond these is refused, context by context.
        over: told when an association that was admitted has ended.
        insecure: told when a TLS handshake has failed.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        admit: Admit,
        store: Store,
        tls: ssl.SSLContext | None = None,
        hand_over: HandOver | None = None,
        further: frozenset[str] = frozenset(),
        over: Over = lambda context: None,
        insecure: Insecure = lambda address, reason: None,
    ) -> None:
        self._limits = limits
        self._admit = admit
        self._store = store
        self._tls = tls
        self._hand_over = hand_over if tls is None and further else None
        self._further = further
        self._over = over
        self._insecure = insecure
        self._lock = threading.Lock()
        self._visitors: dict[_Visitor, threading.Thread] = {}
        self._by_host: Counter[str] = Counter()
        self._established = 0
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Begins to listen.

        Raises:
            OSError: the address or port can't be had.
        """
        family = socket.AF_INET6 if ":" in self._limits.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._limits.host, self._limits.port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._stopping = False
        self._listener = listener
        self._port = int(listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, args=(listener,), name="dimse", daemon=True)
        self._thread.start()

    def renew_tls(self, tls: ssl.SSLContext) -> None:
        """Uses other certificates from the next connection on."""
        self._tls = tls

    @property
    def port(self) -> int:
        """The port it listens on; 0 before ``start``."""
        return self._port if self._listener is not None else 0

    @property
    def associations(self) -> int:
        """How many associations are open."""
        return self._established

    @property
    def listening(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stops listening, gives open associations a moment to end, then aborts them. Blocks until they are over."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._stopping = True
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        listener.close()
        deadline = time.monotonic() + self._limits.stop_seconds
        while self._established and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            left = dict(self._visitors)
        for visitor in left:
            visitor.dismiss()
        for thread in left.values():
            thread.join(self._limits.stop_seconds)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                connected, address = listener.accept()
            except OSError as error:
                if not self._stopping:
                    # Out of file descriptors, or a connection that was gone before it was taken.
                    _log.warning("a connection could not be taken", reason=str(error))
                    select.select([], [], [], 0.1)
                continue
            visitor = _Visitor(connected, address)
            thread = threading.Thread(target=self._serve, args=(visitor,), name="association", daemon=True)
            self._make_room()
            with self._lock:
                self._visitors[visitor] = thread
            try:
                thread.start()
            except RuntimeError as error:
                _log.error("no thread for a connection", reason=str(error))
                self._leave(visitor)

    def _make_room(self) -> None:
        """Lets the connection go that has said nothing of use for longest, when there are too many such."""
        with self._lock:
            pending = [visitor for visitor in self._visitors if not visitor.established and not visitor.dismissed]
            oldest = min(pending, key=lambda visitor: visitor.began) if len(pending) >= _SPARE_CONNECTIONS else None
        if oldest is not None:
            _log.warning("too many connections without an association; the oldest was closed", peer=oldest.host)
            oldest.dismiss()

    def _serve(self, visitor: _Visitor) -> None:
        deadline = visitor.began + self._limits.negotiation_seconds
        try:
            certificate = self._secure(visitor, deadline)
            if self._hand_over is not None and self._wants_more(visitor, deadline):
                self._hand_over(visitor.socket, visitor.address)
                return
            visitor.connection = Connection(visitor.socket)
            association = Association(
                visitor.connection,
                visitor.host,
                certificate,
                limits=self._limits,
                admit=self._admit,
                store=self._store,
                accepted=lambda: self._count(visitor),
                over=self._over,
            )
            association.run(deadline)
        except OSError as error:
            _log.warning("a connection failed", peer=visitor.host, reason=str(error))
            with suppress(OSError):
                visitor.socket.close()
        except Exception as error:
            _log.error("unexpected error on an association", peer=visitor.host, exc_info=error)
            with suppress(OSError):
                visitor.socket.close()
        finally:
            self._leave(visitor)

    def _secure(self, visitor: _Visitor, deadline: float) -> bytes | None:
        """Makes the connection TLS, where that is asked for, and gives the peer's certificate."""
        if self._tls is None:
            return None
        visitor.socket.settimeout(max(0.1, deadline - time.monotonic()))
        secured = self._tls.wrap_socket(visitor.socket, server_side=True, do_handshake_on_connect=False)
        visitor.socket = secured
        try:
            secured.do_handshake()
            _require_lasting(secured)
        except OSError as error:
            self._insecure(visitor.host, str(error))
            raise
        return secured.getpeercert(binary_form=True)

    def _wants_more(self, visitor: _Visitor, deadline: float) -> bool:
        body = peek_associate_request(visitor.socket, deadline)
        if body is None:
            return False
        try:
            request = parse_associate_request(body)
        except InvalidPdu:
            return False  # it is read again, and answered then
        return any(context.abstract_syntax in self._further for context in request.contexts)

    def _count(self, visitor: _Visitor) -> None:
        """Counts an association in, unless there are too many."""
        with self._lock:
            full = self._established >= self._limits.associations
            if full or self._by_host[visitor.host] >= self._limits.associations_per_peer or self._stopping:
                raise AssociationRejected.local_limit_exceeded()
            visitor.established = True
            self._established += 1
            self._by_host[visitor.host] += 1

    def _leave(self, visitor: _Visitor) -> None:
        with self._lock:
            self._visitors.pop(visitor, None)
            if visitor.established:
                self._established -= 1
                self._by_host[visitor.host] -= 1
                if not self._by_host[visitor.host]:
                    del self._by_host[visitor.host]


def _require_lasting(secured: ssl.SSLSocket) -> None:
    """Checks that a certificate which was verified for an earlier connection has not ended since.

    A TLS 1.2 session may be taken up again as long as its first connection is open, and is not verified anew.
    """
    if not secured.session_reused:
        return
    certificate = secured.getpeercert() or {}
    ends = certificate.get("notAfter")
    if isinstance(ends, str) and ssl.cert_time_to_seconds(ends) < time.time():
        raise ssl.SSLError(1, "[SSL: CERTIFICATE_EXPIRED] certificate has expired since the session began")

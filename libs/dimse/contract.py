"""What the acceptor and whoever keeps the instances tell each other."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Limits:
    """Where the acceptor listens, and what one peer and all of them together may do.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes any that is free.
        associations: how many associations at once.
        associations_per_peer: how many of them from one address.
        data_set_bytes: the largest data set; a larger one is refused, and the association aborted when it goes on.
        negotiation_seconds: from the connection to a complete association request, TLS included.
        idle_seconds: without a message on an open association.
        pause_seconds: between two bytes in mid-message.
        message_seconds: what a message may take however little it brings, and then
        bytes_per_second: the least rate at which it must come.
        stop_seconds: how long open associations may go on when the acceptor stops.
    """

    host: str = "127.0.0.1"
    port: int = 0
    associations: int = 128
    associations_per_peer: int = 64
    data_set_bytes: int = 2 << 30
    negotiation_seconds: float = 10.0
    idle_seconds: float = 120.0
    pause_seconds: float = 30.0
    message_seconds: float = 60.0
    bytes_per_second: int = 4096
    stop_seconds: float = 5.0


@dataclass(frozen=True)
class Peer:
    """Who asks for an association.

    Attributes:
        address: its IP address.
        calling_ae_title: what it calls itself.
        called_ae_title: what it calls us.
        certificate: of a TLS client, as DER; None without TLS.
    """

    address: str
    calling_ae_title: str
    called_ae_title: str
    certificate: bytes | None = None


@dataclass(frozen=True)
class StoreCommand:
    """A C-STORE request (PS3.7 section 9.1.1), before its data set.

    Attributes:
        sop_class_uid: (0000,0002); it is the abstract syntax of the presentation context.
        sop_instance_uid: (0000,1000), as the peer wrote it: not checked to be a UID.
        transfer_syntax: of the presentation context.
        message_id: (0000,0110).
        move_originator_ae_title: (0000,1030); empty when no C-MOVE is behind it.
        move_originator_message_id: (0000,1031), or None.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    message_id: int
    move_originator_ae_title: str = ""
    move_originator_message_id: int | None = None


@dataclass(frozen=True)
class StoreStatus:
    """The answer to a C-STORE that was taken.

    Attributes:
        status: 0x0000, or a warning (PS3.4 table B.2-1).
        comment: for (0000,0902) Error Comment; cut after 64 characters.
    """

    status: int = 0x0000
    comment: str = ""


class Receiving(Protocol):
    """One instance that is being received. All calls come from the association's thread."""

    def write(self, part: memoryview, /) -> None:
        """Takes the next bytes of the data set; the view is valid during the call only.

        Raises:
            StoreRefused: the instance is not taken; ``abort`` is called, the rest is read and thrown away.
        """

    def finish(self) -> StoreStatus:
        """The data set is complete. When this returns, the instance is durable.

        Raises:
            StoreRefused: it is not taken; ``abort`` is called.
        """

    def abort(self) -> None:
        """Nothing of the instance stays. Called once, unless ``finish`` has returned."""


class Store(Protocol):
    """Who keeps what is received."""

    def begin(self, context: Any, peer: Peer, command: StoreCommand, /) -> Receiving:
        """A C-STORE request has come, its data set follows.

        Arguments:
            context: what ``admit`` returned for this association.
            peer: who sends.
            command: the request.

        Raises:
            StoreRefused: it is not taken; the data set is read and thrown away.
        """


Admit = Callable[[Peer], object]
"""Lets an association in, and gives a context of the caller's own for it; raises ``AssociationRejected``."""
HandOver = Callable[[socket.socket, tuple[Any, ...]], None]
"""Takes a connection, with its address, whose association request is unread; it owns it from then on."""
Over = Callable[[Any], None]
"""Told, with its context, that an association which was admitted has ended."""
Insecure = Callable[[str, str], None]
"""Told of a TLS handshake that failed: the peer's address, and why."""

"""pynetdicom for what the acceptor does not serve itself: queries, retrieval, the N-services.

It gets whole connections, before anything is read from them; the acceptor listens for both.
"""

import socket
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import ThreadedAssociationServer


class HandedOver(ThreadedAssociationServer):
    """Serves associations of an application entity on connections that others have accepted.

    ``take`` is the acceptor's ``hand_over``; the SOP classes of the entity's contexts, verification and storage left
    out, are its ``further``.

    Arguments:
        entity: with the presentation contexts that it supports.
        handlers: pynetdicom's event handlers.
    """

    daemon_threads = True

    def __init__(self, entity: AE, handlers: list[Any]) -> None:
        super().__init__(entity, ("127.0.0.1", 0), entity.ae_title, entity.supported_contexts, evt_handlers=handlers)

    def server_bind(self) -> None:
        """Binds nothing: it does not listen."""
        if self.socket is not None:
            self.socket.close()

    def server_activate(self) -> None:
        """Listens to nobody."""

    def take(self, connected: socket.socket, address: tuple[Any, ...]) -> None:
        """Serves one association, in threads of its own."""
        connected.settimeout(self.ae.network_timeout)
        self.process_request(connected, (str(address[0]), int(address[1])))

    def stop(self) -> None:
        """Aborts the associations that are open."""
        for association in self.active_associations:
            association.abort()

"""A data set on its way: to the store, or read and thrown away once it is refused."""

from typing import Any, Protocol

import structlog

from libs.dimse import commands
from libs.dimse.commands import Command
from libs.dimse.contract import Peer, Receiving, Store, StoreCommand
from libs.dimse.errors import LONGEST_COMMENT, OUT_OF_RESOURCES, PeerOutOfBounds, StoreRefused
from libs.dimse.pdu import PresentationContext

_log = structlog.get_logger(__name__)


class DataSet(Protocol):
    """The data set of the message under way."""

    command: Command

    def write(self, part: memoryview, /) -> None:
        """Takes the next bytes.

        Raises:
            PeerOutOfBounds: there are too many.
        """

    def finish(self) -> tuple[int | None, str]:
        """Status, or None when there is no answer, and comment."""

    def abort(self) -> None:
        """It will never be complete."""


class Discarded:
    """A data set that nobody wants.

    Arguments:
        command: what it belongs to.
        status: to be answered.
        comment: the same.
        limit: the most bytes.
    """

    def __init__(self, command: Command, status: int | None, comment: str, limit: int) -> None:
        self.command = command
        self._answer = status, comment
        self._left = limit

    def write(self, part: memoryview, /) -> None:
        """Counts the bytes."""
        self._left -= len(part)
        if self._left < 0:
            raise PeerOutOfBounds("a data set that is thrown away does not end")

    def finish(self) -> tuple[int | None, str]:
        """The status that was settled before."""
        return self._answer

    def abort(self) -> None:
        """Nothing was kept."""


class Stored:
    """The data set of a C-STORE.

    Arguments:
        store: who keeps it.
        context: of the association, the store's own.
        peer: who sends.
        command: the request.
        presentation: its presentation context.
        limit: the most bytes of a data set.
    """

    def __init__(
        self, store: Store, context: Any, peer: Peer, command: Command, presentation: PresentationContext, limit: int
    ) -> None:
        self.command = command
        self._peer = peer
        self._limit = limit
        self._size = 0
        self._receiving: Receiving | None = None
        self._refusal: Discarded | None = None
        if command.sop_class_uid != presentation.abstract_syntax:
            self._refuse(commands.SOP_CLASS_NOT_SUPPORTED, "the SOP class is not that of the presentation context")
            return
        request = StoreCommand(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax=presentation.transfer_syntaxes[0],
            message_id=command.message_id,
            move_originator_ae_title=command.move_originator_ae_title,
            move_originator_message_id=command.move_originator_message_id,
        )
        try:
            self._receiving = store.begin(context, peer, request)
        except Exception as error:
            self._failed(error)

    def write(self, part: memoryview, /) -> None:
        """Gives the next bytes to the store."""
        if self._receiving is None:
            if self._refusal is not None:
                self._refusal.write(part)
            return
        self._size += len(part)
        if self._size > self._limit:
            self._refuse(OUT_OF_RESOURCES, f"the data set is larger than {self._limit} bytes")
            return
        try:
            self._receiving.write(part)
        except Exception as error:
            self._failed(error)

    def finish(self) -> tuple[int | None, str]:
        """Makes it durable, and says so."""
        if self._receiving is not None:
            try:
                answer = self._receiving.finish()
            except Exception as error:
                self._failed(error)
            else:
                self._receiving = None
                return answer.status, answer.comment
        return self._refusal.finish() if self._refusal is not None else (commands.PROCESSING_FAILURE, "")

    def abort(self) -> None:
        """Nothing of it stays."""
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            try:
                receiving.abort()
            except Exception as error:
                _log.error("a store that was broken off left something behind", exc_info=error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, StoreRefused):
            self._refuse(error.status, error.comment)
            return
        _log.error("unexpected error in a C-STORE", exc_info=error)
        self._refuse(commands.PROCESSING_FAILURE, "an error that was logged")

    def _refuse(self, status: int, comment: str) -> None:
        self.abort()
        _log.warning(
            "refused a C-STORE",
            status=f"{status:04X}",
            reason=comment,
            peer=self._peer.address,
            calling_ae_title=self._peer.calling_ae_title,
        )
        self._refusal = Discarded(self.command, status, comment[:LONGEST_COMMENT], self._limit)

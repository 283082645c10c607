"""One association from the request to the release: the acceptor's side of PS3.8 section 9.2, and PS3.7's messages."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from libs.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from libs.dimse import commands
from libs.dimse.commands import Command
from libs.dimse.contract import Admit, Limits, Over, Peer, Store
from libs.dimse.errors import (
    BY_PROVIDER_ACSE,
    BY_USER,
    PERMANENT,
    UNEXPECTED_PDU,
    AssociationRejected,
    ConnectionEnded,
    InvalidPdu,
    PeerOutOfBounds,
)
from libs.dimse.negotiation import Negotiated, negotiate
from libs.dimse.pdu import (
    ABORT,
    APPLICATION_CONTEXT,
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE_RQ,
    AssociateRequest,
    PresentationDataValue,
    encode_abort,
    encode_associate_accept,
    encode_associate_reject,
    encode_command,
    encode_release_reply,
    parse_associate_request,
    parse_presentation_data,
)
from libs.dimse.receiving import DataSet, Discarded, Stored
from libs.dimse.wire import MAXIMUM_LENGTH, Connection

_BY_SERVICE_PROVIDER: Final = 2
_MOST_EMPTY_FRAGMENTS: Final = 256
_log = structlog.get_logger(__name__)


class Association:
    """Runs one association in the thread that calls ``run``.

    Arguments:
        connection: to the peer.
        address: of the peer.
        certificate: of a TLS client, as DER.
        limits: what the peer may do.
        admit: lets it in.
        store: keeps what it sends.
        accepted: called once when a request for an association is complete and before it is answered; raises
            ``AssociationRejected`` when there are too many.
        over: called at the end of an association that was admitted.
    """

    def __init__(
        self,
        connection: Connection,
        address: str,
        certificate: bytes | None,
        *,
        limits: Limits,
        admit: Admit,
        store: Store,
        accepted: Callable[[], None],
        over: Over = lambda context: None,
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._admit = admit
        self._store = store
        self._accepted = accepted
        self._over = over
        self._admitted = False
        self._peer = Peer(address, "", "", certificate)
        self._context: object = None
        self._maximum_length = 0
        self._negotiated = Negotiated((), {}, ())
        self._command_bytes = bytearray()
        self._context_id = 0
        self._message_began: float | None = None
        self._message_bytes = 0
        self._empty_fragments = 0
        self._data_set: DataSet | None = None

    def run(self, deadline: float) -> None:
        """Runs until the association is over. Raises nothing that the peer could cause.

        Arguments:
            deadline: when the request must be complete, on the monotonic clock.
        """
        answered = True
        try:
            if self._establish(deadline):
                self._serve()
        except InvalidPdu as error:
            self._aborted(error.words, error.reason)
        except PeerOutOfBounds as error:
            self._aborted(str(error), 0)
        except ConnectionEnded as error:
            answered = self._connection.interrupted
            if answered:
                self._aborted("the acceptor stops", 0)
            elif self._message_began is not None:
                self._log("a peer went away in the middle of a message", str(error))
        finally:
            if self._data_set is not None:
                self._data_set.abort()
            if self._admitted:
                self._over(self._context)
            self._connection.close(after_answer=answered)

    def _log(self, event: str, reason: str) -> None:
        _log.warning(
            event,
            reason=reason,
            peer=self._peer.address,
            calling_ae_title=self._peer.calling_ae_title,
            called_ae_title=self._peer.called_ae_title,
        )

    def _aborted(self, words: str, reason: int) -> None:
        self._log("aborted an association", words)
        with suppress(ConnectionEnded):
            self._connection.send(encode_abort(_BY_SERVICE_PROVIDER, reason))

    def _establish(self, deadline: float) -> bool:
        """States 2 and 3: waits for the request and answers it."""
        connection = self._connection
        connection.deadline, connection.pause = deadline, self._limits.negotiation_seconds
        kind, body = connection.read_pdu()
        if kind == ABORT:
            return False
        if kind != ASSOCIATE_RQ:
            raise InvalidPdu("the first PDU is no association request", UNEXPECTED_PDU)
        request = parse_associate_request(body)
        self._peer = Peer(self._peer.address, request.calling_ae_title, request.called_ae_title, self._peer.certificate)
        try:
            _check(request)
            self._accepted()
            self._context = self._admit(self._peer)
            self._admitted = True
        except AssociationRejected as rejection:
            self._log("rejected an association", str(rejection))
            connection.send(encode_associate_reject(rejection.result, rejection.source, rejection.reason))
            return False
        self._maximum_length = request.maximum_length
        self._negotiated = negotiate(request)
        connection.send(
            encode_associate_accept(
                request,
                self._negotiated.answers,
                maximum_length=MAXIMUM_LENGTH,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                roles=self._negotiated.roles,
            )
        )
        return True

    def _serve(self) -> None:
        """State 6: messages until the peer releases or aborts."""
        connection, limits = self._connection, self._limits
        connection.pause = limits.pause_seconds
        while True:
            connection.deadline = self._deadline()
            kind, body = connection.read_pdu()
            if kind == P_DATA:
                for value in parse_presentation_data(body):
                    self._take(value)
            elif kind == RELEASE_RQ:
                if self._message_began is not None:
                    raise InvalidPdu("a release in the middle of a message", UNEXPECTED_PDU)
                connection.send(encode_release_reply())
                return
            elif kind == ABORT:
                return
            else:
                raise InvalidPdu(f"a PDU of type {kind} on an open association", UNEXPECTED_PDU)

    def _deadline(self) -> float:
        """When the next PDU must be complete: an idle association has its time, a message has what its rate allows."""
        if self._message_began is None:
            return time.monotonic() + self._limits.idle_seconds
        allowed = self._limits.message_seconds + self._message_bytes / self._limits.bytes_per_second
        # However much it has sent before, a peer that falls silent between two PDUs of a message is let go soon.
        return min(self._message_began + allowed, time.monotonic() + self._limits.pause_seconds)

    def _take(self, value: PresentationDataValue) -> None:
        if value.context_id not in self._negotiated.accepted:
            raise InvalidPdu("a fragment on a presentation context that was not accepted")
        if self._message_began is None:
            self._message_began, self._message_bytes, self._empty_fragments = time.monotonic(), 0, 0
        self._message_bytes += len(value.fragment)
        if not value.fragment:
            # Each costs us more than its sender; a message needs one at its end, if any.
            self._empty_fragments += 1
            if self._empty_fragments > _MOST_EMPTY_FRAGMENTS:
                raise InvalidPdu(f"a message has more than {_MOST_EMPTY_FRAGMENTS} empty fragments")
        if self._data_set is None:
            if not value.is_command:
                raise InvalidPdu("a data set without a command")
            self._take_command(value)
            return
        if value.is_command or value.context_id != self._context_id:
            raise InvalidPdu("a command or another presentation context in the middle of a data set")
        self._data_set.write(value.fragment)
        if value.is_last:
            data_set, self._data_set = self._data_set, None
            self._answer(data_set.command, *data_set.finish())

    def _take_command(self, value: PresentationDataValue) -> None:
        if self._command_bytes and value.context_id != self._context_id:
            raise InvalidPdu("a command on two presentation contexts")
        self._context_id = value.context_id
        if len(self._command_bytes) + len(value.fragment) > commands.LARGEST_COMMAND:
            raise InvalidPdu(f"a command set has more than {commands.LARGEST_COMMAND} bytes")
        self._command_bytes += value.fragment
        if value.is_last:
            command = commands.parse_command(self._command_bytes)
            self._command_bytes = bytearray()
            self._begin(command)

    def _begin(self, command: Command) -> None:
        """A command is complete: answered at once, or after its data set."""
        if command.field & commands.RESPONSE:
            raise InvalidPdu("a response to a request that was never made", UNEXPECTED_PDU)
        context = self._negotiated.accepted[self._context_id]
        limit = self._limits.data_set_bytes
        if command.field == commands.C_STORE_RQ and command.has_data_set:
            self._data_set = Stored(self._store, self._context, self._peer, command, context, limit)
            return
        status, comment = self._without_data_set(command)
        if command.has_data_set:
            self._data_set = Discarded(command, status, comment, limit)
            return
        self._answer(command, status, comment)

    def _without_data_set(self, command: Command) -> tuple[int | None, str]:
        if command.field == commands.C_ECHO_RQ:
            return commands.SUCCESS, ""
        if command.field == commands.C_CANCEL_RQ:
            return None, ""  # nothing that could be cancelled is under way, and a cancel has no answer of its own
        if command.field == commands.C_STORE_RQ:
            return 0xC000, "the C-STORE has no data set"
        return commands.UNRECOGNISED_OPERATION, "only C-STORE and C-ECHO are served here"

    def _answer(self, command: Command, status: int | None, comment: str) -> None:
        self._message_began = None
        if status is not None:
            response = commands.encode_response(command, status, comment)
            self._connection.send(encode_command(self._context_id, response, self._maximum_length))


def _check(request: AssociateRequest) -> None:
    if not request.protocol_version & 1:
        raise AssociationRejected(PERMANENT, BY_PROVIDER_ACSE, 2, "the protocol version is not supported")
    if request.application_context != APPLICATION_CONTEXT:
        raise AssociationRejected(PERMANENT, BY_USER, 2, "the application context is not DICOM's")

"""The PDUs of the upper layer as values: what arrives is parsed here, what goes out is encoded (PS3.8 section 9.3).

Nothing here does I/O. Every length that a peer declares is checked against what is there.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from libs.dimse.errors import INVALID_PARAMETER, InvalidPdu

Buffer = bytes | bytearray | memoryview

ASSOCIATE_RQ: Final = 0x01
ASSOCIATE_AC: Final = 0x02
ASSOCIATE_RJ: Final = 0x03
P_DATA: Final = 0x04
RELEASE_RQ: Final = 0x05
RELEASE_RP: Final = 0x06
ABORT: Final = 0x07
KNOWN_PDUS: Final = range(ASSOCIATE_RQ, ABORT + 1)
HEADER: Final = 6
"""Bytes before the body of every PDU: type, reserved, length."""

MOST_ITEMS: Final = 8192
"""Items and sub-items in one A-ASSOCIATE-RQ; 128 contexts with 60 transfer syntaxes each."""
MOST_CONTEXTS: Final = 128
MOST_VALUES: Final = 1024
"""Presentation data values in one P-DATA-TF."""
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"

_FIXED: Final = struct.Struct(">HH16s16s32x")
_ITEM: Final = struct.Struct(">BxH").unpack_from
_LONG: Final = struct.Struct(">I").unpack_from
_PDV: Final = struct.Struct(">IBB").unpack_from


@dataclass(frozen=True)
class PresentationContext:
    """One proposed presentation context (PS3.8 table 9-13).

    Attributes:
        id: odd, from 1 to 255.
        abstract_syntax: the SOP class.
        transfer_syntaxes: as proposed, in the peer's order of preference.
    """

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class Role(NamedTuple):
    """What the requestor wants to be for a SOP class (PS3.7 table D.3-9)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ (PS3.8 table 9-11).

    Attributes:
        protocol_version: bits; bit 0 must be set.
        called_ae_title: without the spaces around.
        calling_ae_title: the same.
        titles: both fields as they came, 32 bytes, to be given back in the answer.
        application_context: the only one there is, or another.
        contexts: what is proposed.
        maximum_length: the longest P-DATA-TF body that the peer takes; 0 means any.
        implementation_class_uid: who made the peer; may be empty.
        implementation_version_name: the same in words.
        asynchronous: the operations window proposed (invoked, performed); None when absent.
        roles: SCP/SCU role selection.
        storage_uids: SOP classes that common extended negotiation says are of the storage service class.
        user_identity_type: of the user identity offered; 0 when there is none.
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    titles: bytes
    application_context: str
    contexts: tuple[PresentationContext, ...]
    maximum_length: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    asynchronous: tuple[int, int] | None = None
    roles: tuple[Role, ...] = ()
    storage_uids: frozenset[str] = frozenset()
    user_identity_type: int = 0


class PresentationDataValue(NamedTuple):
    """A fragment of a message (PS3.8 annex E).

    Attributes:
        context_id: of its presentation context.
        is_command: a part of the command set, else of the data set.
        is_last: the last fragment of that set.
        fragment: its bytes, a view into the PDU.
    """

    context_id: int
    is_command: bool
    is_last: bool
    fragment: memoryview


@dataclass(frozen=True)
class ContextAnswer:
    """What becomes of a proposed context (PS3.8 table 9-18).

    Attributes:
        id: of the proposed context.
        result: 0 accepted, 1 refused by the user, 2 no reason, 3 abstract syntax, 4 transfer syntaxes.
        transfer_syntax: the accepted one; without meaning when refused.
    """

    id: int
    result: int
    transfer_syntax: str = "1.2.840.10008.1.2"


def parse_header(data: Buffer) -> tuple[int, int]:
    """Type and length of the body of the PDU that begins with these six bytes."""
    return data[0], _LONG(data, 2)[0]


def parse_associate_request(body: Buffer) -> AssociateRequest:
    """Parses the body of an A-ASSOCIATE-RQ; items that are not known are passed over (PS3.8 section 9.3.1).

    Raises:
        InvalidPdu: a length lies, there are too many items, or a context's identifier is even or there twice.
    """
    if len(body) < _FIXED.size:
        raise InvalidPdu("an association request is too short")
    version, _, called, calling = _FIXED.unpack_from(body)
    view = memoryview(body).toreadonly()
    count = _Counter()
    application, contexts, user = "", [], _UserInformation()
    for kind, item in _items(view[_FIXED.size :], count):
        if kind == 0x10:
            application = _uid(item)
        elif kind == 0x20:
            contexts.append(_context(item, count))
        elif kind == 0x50:
            user.read(item, count)
    if len(contexts) > MOST_CONTEXTS or len({context.id for context in contexts}) < len(contexts):
        raise InvalidPdu("presentation contexts are too many, or share an identifier")
    return AssociateRequest(
        protocol_version=version,
        called_ae_title=_title(called),
        calling_ae_title=_title(calling),
        titles=called + calling,
        application_context=application,
        contexts=tuple(contexts),
        maximum_length=user.maximum_length,
        implementation_class_uid=user.implementation_class_uid,
        implementation_version_name=user.implementation_version_name,
        asynchronous=user.asynchronous,
        roles=tuple(user.roles),
        storage_uids=frozenset(user.storage_uids),
        user_identity_type=user.user_identity_type,
    )


class _Counter:
    def __init__(self) -> None:
        self._left = MOST_ITEMS

    def one(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InvalidPdu(f"an association request has more than {MOST_ITEMS} items")


def _items(data: memoryview, count: _Counter) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each item."""
    position, end = 0, len(data)
    while position < end:
        count.one()
        if end - position < 4:
            raise InvalidPdu("an association request ends in the middle of an item")
        kind, length = _ITEM(data, position)
        position += 4
        if length > end - position:
            raise InvalidPdu("an item of an association request is longer than what holds it")
        yield kind, data[position : position + length]
        position += length


def _context(item: memoryview, count: _Counter) -> PresentationContext:
    if len(item) < 4:
        raise InvalidPdu("a presentation context is too short")
    if item[0] % 2 == 0:
        raise InvalidPdu("a presentation context has an even identifier")
    abstract, transfer = "", []
    for kind, content in _items(item[4:], count):
        if kind == 0x30:
            abstract = _uid(content)
        elif kind == 0x40:
            transfer.append(_uid(content))
    return PresentationContext(item[0], abstract, tuple(transfer))


_STORAGE_SERVICE_CLASS: Final = "1.2.840.10008.4.2"


class _UserInformation:
    """The sub-items of the user information item (PS3.8 annex D, PS3.7 annex D.3.3)."""

    def __init__(self) -> None:
        self.maximum_length = 0
        self.implementation_class_uid = ""
        self.implementation_version_name = ""
        self.asynchronous: tuple[int, int] | None = None
        self.roles: list[Role] = []
        self.storage_uids: set[str] = set()
        self.user_identity_type = 0

    def read(self, item: memoryview, count: _Counter) -> None:
        for kind, content in _items(item, count):
            if kind == 0x51 and len(content) == 4:
                self.maximum_length = _LONG(content)[0]
            elif kind == 0x52:
                self.implementation_class_uid = _uid(content)
            elif kind == 0x53 and len(content) == 4:
                self.asynchronous = struct.unpack(">HH", content)
            elif kind == 0x54:
                uid, rest = _counted(content)
                if len(rest) >= 2:
                    self.roles.append(Role(_uid(uid), rest[0] == 1, rest[1] == 1))
            elif kind == 0x55:
                self.implementation_version_name = _text(content[:16])
            elif kind == 0x57:
                sop_class, rest = _counted(content)
                service_class, _ = _counted(rest)
                if _uid(service_class) == _STORAGE_SERVICE_CLASS:
                    self.storage_uids.add(_uid(sop_class))
            elif kind == 0x58 and len(content):
                self.user_identity_type = content[0]


def _counted(data: memoryview) -> tuple[memoryview, memoryview]:
    """A text that is preceded by its length in two bytes, and what follows it."""
    if len(data) < 2 or (length := data[0] << 8 | data[1]) > len(data) - 2:
        raise InvalidPdu("a text of the user information is longer than what holds it")
    return data[2 : 2 + length], data[2 + length :]


def _text(data: Buffer) -> str:
    return bytes(data).decode("ascii", "replace").strip(" \0")


def _uid(data: memoryview) -> str:
    # More than any identifier may have, so that what is too long is seen as not valid and costs no memory.
    return bytes(data[:72]).decode("ascii", "replace").strip(" \0")


def _title(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" ")


def encode_associate_accept(
    request: AssociateRequest,
    answers: Sequence[ContextAnswer],
    *,
    maximum_length: int,
    implementation_class_uid: str,
    implementation_version_name: str,
    roles: Sequence[Role] = (),
) -> bytes:
    """An A-ASSOCIATE-AC (PS3.8 table 9-17).

    Arguments:
        request: what it answers.
        answers: one for each proposed context.
        maximum_length: the longest P-DATA-TF body that we take.
        implementation_class_uid: ours.
        implementation_version_name: ours, up to 16 characters.
        roles: the roles that were agreed on.
    """
    user = [
        _item(0x51, struct.pack(">I", maximum_length)),
        _item(0x52, implementation_class_uid.encode()),
    ]
    if request.asynchronous is not None:
        user.append(_item(0x53, struct.pack(">HH", 1, 1)))
    for uid, scu, scp in roles:
        name = uid.encode()
        user.append(_item(0x54, struct.pack(">H", len(name)) + name + bytes((scu, scp))))
    user.append(_item(0x55, implementation_version_name.encode()[:16]))
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    items += [
        _item(0x21, bytes((answer.id, 0, answer.result, 0)) + _item(0x40, answer.transfer_syntax.encode()))
        for answer in answers
    ]
    items.append(_item(0x50, b"".join(user)))
    return _pdu(ASSOCIATE_AC, struct.pack(">HH", 1, 0) + request.titles + bytes(32) + b"".join(items))


def encode_associate_reject(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return _pdu(ASSOCIATE_RJ, bytes((0, result, source, reason)))


def encode_abort(source: int, reason: int = 0) -> bytes:
    """An A-ABORT (PS3.8 table 9-26): source 0 the user of the service, 2 its provider."""
    return _pdu(ABORT, bytes((0, 0, source, reason)))


def encode_release_reply() -> bytes:
    """An A-RELEASE-RP (PS3.8 table 9-25)."""
    return _pdu(RELEASE_RP, bytes(4))


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def parse_presentation_data(body: Buffer) -> list[PresentationDataValue]:
    """The fragments in the body of a P-DATA-TF (PS3.8 table 9-22).

    Raises:
        InvalidPdu: a length lies, or there are no fragments, or too many.
    """
    view = memoryview(body)
    position, end = 0, len(view)
    values: list[PresentationDataValue] = []
    while position < end:
        if end - position < 6:
            raise InvalidPdu("a P-DATA-TF ends in the middle of a presentation data value")
        length, context_id, control = _PDV(view, position)
        stop = position + 4 + length
        if length < 2 or stop > end:
            raise InvalidPdu("a presentation data value is longer than its P-DATA-TF, or too short")
        if len(values) == MOST_VALUES:
            raise InvalidPdu(f"a P-DATA-TF has more than {MOST_VALUES} presentation data values")
        fragment = view[position + 6 : stop]
        values.append(PresentationDataValue(context_id, bool(control & 1), bool(control & 2), fragment))
        position = stop
    if not values:
        raise InvalidPdu("a P-DATA-TF is empty", INVALID_PARAMETER)
    return values


def encode_command(context_id: int, command: bytes, maximum_length: int) -> bytes:
    """A command set as P-DATA-TF, in as many as the peer's maximum asks for.

    Arguments:
        context_id: of the presentation context.
        command: the encoded command set.
        maximum_length: the longest body that the peer takes; 0 means any.
    """
    most = len(command) if maximum_length == 0 else max(2, maximum_length - 6)
    pdus = []
    for start in range(0, len(command), most):
        part = command[start : start + most]
        control = 3 if start + most >= len(command) else 1
        pdus.append(struct.pack(">BBIIBB", P_DATA, 0, len(part) + 6, len(part) + 2, context_id, control) + part)
    return b"".join(pdus)

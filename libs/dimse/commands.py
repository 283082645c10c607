"""Command sets: implicit VR little endian elements of group 0000 (PS3.7 section 6.3 and annex E). No I/O."""

import struct
from dataclasses import dataclass
from typing import Final

from libs.dimse.errors import LONGEST_COMMENT, InvalidPdu

LARGEST_COMMAND: Final = 16 * 1024
"""Bytes of a command set; real ones have a few hundred."""
MOST_ELEMENTS: Final = 64
C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000
NO_DATA_SET: Final = 0x0101
SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
UNRECOGNISED_OPERATION: Final = 0x0211

_AFFECTED_SOP_CLASS_UID: Final = 0x0002
_REQUESTED_SOP_CLASS_UID: Final = 0x0003
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_MESSAGE_ID_RESPONDED_TO: Final = 0x0120
_PRIORITY: Final = 0x0700
_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_ERROR_COMMENT: Final = 0x0902
_AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
_REQUESTED_SOP_INSTANCE_UID: Final = 0x1001
_MOVE_ORIGINATOR_AE_TITLE: Final = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID: Final = 0x1031

_ELEMENT: Final = struct.Struct("<HHI")
_SHORT: Final = struct.Struct("<H")


@dataclass(frozen=True)
class Command:
    """A request of the peer.

    Attributes:
        field: (0000,0100), which request it is.
        message_id: (0000,0110).
        has_data_set: (0000,0800) says that a data set follows.
        sop_class_uid: (0000,0002), or (0000,0003) of a request that has that; may be empty.
        sop_instance_uid: (0000,1000), or (0000,1001); may be empty.
        priority: (0000,0700): 0 medium, 1 high, 2 low.
        move_originator_ae_title: (0000,1030); empty when no C-MOVE is behind it.
        move_originator_message_id: (0000,1031), or None.
    """

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    priority: int = 0
    move_originator_ae_title: str = ""
    move_originator_message_id: int | None = None


def parse_command(data: bytes | bytearray | memoryview) -> Command:
    """Parses a command set.

    Elements out of order and wrong group lengths are lived with, since real peers have them; of two the first counts.

    Raises:
        InvalidPdu: a length lies, an element of another group is there, or it does not say what is asked and by which
            message.
    """
    values = _elements(data)
    field = _number(values, _COMMAND_FIELD)
    message_id = _number(values, _MESSAGE_ID)
    if field is None:
        raise InvalidPdu("a command set has no command field")
    if message_id is None:
        message_id = _number(values, _MESSAGE_ID_RESPONDED_TO)  # C-CANCEL has only this one
    if message_id is None:
        raise InvalidPdu("a command set has no message identifier")
    data_set_type = _number(values, _DATA_SET_TYPE)
    return Command(
        field=field,
        message_id=message_id,
        has_data_set=data_set_type is not None and data_set_type != NO_DATA_SET,
        sop_class_uid=_text(values, _AFFECTED_SOP_CLASS_UID) or _text(values, _REQUESTED_SOP_CLASS_UID),
        sop_instance_uid=_text(values, _AFFECTED_SOP_INSTANCE_UID) or _text(values, _REQUESTED_SOP_INSTANCE_UID),
        priority=_number(values, _PRIORITY) or 0,
        move_originator_ae_title=_text(values, _MOVE_ORIGINATOR_AE_TITLE),
        move_originator_message_id=_number(values, _MOVE_ORIGINATOR_MESSAGE_ID),
    )


def _elements(data: bytes | bytearray | memoryview) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position, end, count = 0, len(data), 0
    while position < end:
        count += 1
        if end - position < 8 or count > MOST_ELEMENTS:
            raise InvalidPdu("a command set ends in the middle of an element, or has too many")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if group != 0 or length > end - position:
            raise InvalidPdu("an element of a command set is of another group, or longer than the set")
        values.setdefault(element, bytes(data[position : position + length]))
        position += length
    return values


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element, b"")
    return int(_SHORT.unpack(value)[0]) if len(value) == 2 else None


def _text(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"")[:72].decode("ascii", "replace").strip(" \0")


def encode_response(command: Command, status: int, comment: str = "") -> bytes:
    """The response to a request (PS3.7 section 9.3 and 10.3): the same identifiers, and a status.

    Arguments:
        command: what is answered.
        status: (0000,0900).
        comment: (0000,0902); cut after 64 characters, left out when empty.
    """
    body = b"".join(
        (
            _uid(_AFFECTED_SOP_CLASS_UID, command.sop_class_uid),
            _element(_COMMAND_FIELD, _SHORT.pack(command.field | RESPONSE)),
            _element(_MESSAGE_ID_RESPONDED_TO, _SHORT.pack(command.message_id)),
            _element(_DATA_SET_TYPE, _SHORT.pack(NO_DATA_SET)),
            _element(_STATUS, _SHORT.pack(status)),
            _element(_ERROR_COMMENT, _comment(comment)) if comment else b"",
            _uid(_AFFECTED_SOP_INSTANCE_UID, command.sop_instance_uid),
        )
    )
    return _element(0x0000, struct.pack("<I", len(body))) + body


def _comment(text: str) -> bytes:
    value = text.encode("ascii", "replace").replace(b"\\", b"/")[:LONGEST_COMMENT]
    return value + b" " * (len(value) % 2)


def _uid(element: int, uid: str) -> bytes:
    if not uid:
        return b""
    value = uid.encode("ascii", "replace")
    return _element(element, value + b"\0" * (len(value) % 2))


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value

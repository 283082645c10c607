"""The Part 10 file: preamble, file meta information, and where the data set begins (PS3.10 section 7.1)."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Final

from libs.dicom.encapsulated import Buffer
from libs.dicom.errors import InvalidDicom, NotDicom
from libs.dicom.identifiers import require_uid

IMPLEMENTATION_CLASS_UID: Final = "2.25.226364379386418513171265107062893137413"
"""This implementation, in the file meta information that it writes (PS3.10 section 7.1, UUID-derived)."""
IMPLEMENTATION_VERSION_NAME: Final = "LIGHTBOX_01"

PREAMBLE_LENGTH: Final = 128
_PREFIX: Final = b"DICM"
_META_START: Final = PREAMBLE_LENGTH + 4
_LARGEST_META: Final = 64 * 1024
LARGEST_INFLATED: Final = 256 * 1024 * 1024
"""Bytes that a deflated instance may have when inflated, however few they were before."""
PLAUSIBLE_RATIO: Final = 20
"""An instance that was larger than that may have so many bytes for each deflated one: far more than images yield."""
_IN_MEMORY: Final = 4 * 1024 * 1024
_INFLATE_STEP: Final = 256 * 1024
_LONG_VRS: Final = frozenset(
    {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"}
)


@dataclass(frozen=True)
class FileMeta:
    """The file meta information as found.

    Attributes:
        transfer_syntax: (0002,0010); empty when absent.
        sop_class_uid: (0002,0002); empty when absent.
        sop_instance_uid: (0002,0003); empty when absent.
        source_ae_title: (0002,0016); empty when absent.
        dataset_offset: bytes from the start of the file to the data set.
    """

    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    source_ae_title: str
    dataset_offset: int


def file_meta(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str = "") -> bytes:
    """Preamble, prefix and file meta information for a data set that arrived without (PS3.10 table 7.1-1).

    Arguments:
        sop_class_uid: (0002,0002).
        sop_instance_uid: (0002,0003).
        transfer_syntax: (0002,0010), that of the data set which follows.
        source_ae_title: (0002,0016), up to 16 characters; left out when empty.

    Returns:
        The bytes to which the data set, as received, is appended.

    Raises:
        InvalidUid: one of the identifiers is not valid.
    """
    body = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", require_uid(sop_class_uid, "SOP class UID").encode()),
            _element(0x0003, b"UI", require_uid(sop_instance_uid, "SOP instance UID").encode()),
            _element(0x0010, b"UI", require_uid(transfer_syntax, "transfer syntax UID").encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", _ae_title(source_ae_title)) if source_ae_title else b"",
        )
    )
    return bytes(PREAMBLE_LENGTH) + _PREFIX + _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def read_file_meta(data: Buffer) -> FileMeta:
    """Reads the file meta information at the beginning of a Part 10 file.

    The group length is not trusted: the group is walked until an element of another group, since real files carry
    wrong lengths or none. What the preamble holds is of no matter.

    Arguments:
        data: the beginning of the file, or all of it; 64 KiB suffice.

    Raises:
        NotDicom: no "DICM" prefix at byte 128, or the file ends before it.
        InvalidDicom: the group is broken or larger than 64 KiB.
    """
    if len(data) < _META_START or bytes(data[PREAMBLE_LENGTH:_META_START]) != _PREFIX:
        raise NotDicom("This is not a DICOM Part 10 file: the prefix DICM is missing at byte 128.")
    values, position = _walk(data)
    return FileMeta(
        transfer_syntax=_text(values.get(0x0010, b"")),
        sop_class_uid=_text(values.get(0x0002, b"")),
        sop_instance_uid=_text(values.get(0x0003, b"")),
        source_ae_title=_text(values.get(0x0016, b"")),
        dataset_offset=position,
    )


def _walk(data: Buffer) -> tuple[dict[int, bytes], int]:
    values: dict[int, bytes] = {}
    position = _META_START
    end = min(len(data), _META_START + _LARGEST_META)
    while position + 8 <= end:
        group, element = struct.unpack_from("<HH", data, position)
        if group != 0x0002:
            break
        length, start = _extent(data, position, end)
        if start + length > end:
            raise InvalidDicom("An element of the file meta information is too long.")
        values[element] = bytes(data[start : start + length])
        position = start + length
    return values, position


def _extent(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Length and offset of the value of the element at ``position``."""
    vr = bytes(data[position + 4 : position + 6])
    if vr in _LONG_VRS:
        if position + 12 > end:
            raise InvalidDicom("The file meta information ends in the middle of an element.")
        return struct.unpack_from("<I", data, position + 8)[0], position + 12
    if vr.isalpha() and vr.isupper():
        return struct.unpack_from("<H", data, position + 6)[0], position + 8
    # Implicit VR, against the standard but seen.
    return struct.unpack_from("<I", data, position + 4)[0], position + 8


def inflate(data: Buffer, *, largest: int = LARGEST_INFLATED) -> bytes:
    """A Part 10 file of a deflated transfer syntax with its data set inflated (PS3.5 section A.5), in memory.

    The file meta information stays as it is; offsets in ``Header`` of such a file are those in what this returns.

    Arguments:
        data: the whole file.
        largest: bytes that the result may have.

    Raises:
        NotDicom, InvalidDicom: as ``read_file_meta``; or the data set is not deflated, cut short, or too large.
    """
    return b"".join(_inflated_pieces(data, largest))


@contextmanager
def inflated(data: Buffer, folder: Path | None = None) -> Iterator[Buffer]:
    """The same in a temporary file, mapped, so that memory does not grow with what a data set inflates to.

    Its size is bounded by ``LARGEST_INFLATED``, or by ``PLAUSIBLE_RATIO`` where that is more.

    Arguments:
        data: the whole file.
        folder: where the temporary file is made when the instance is not small; by default, where the system has them.

    Raises:
        NotDicom, InvalidDicom: as ``inflate``.
        OSError: the temporary file can't be written.
    """
    largest = max(LARGEST_INFLATED, PLAUSIBLE_RATIO * len(data))
    with SpooledTemporaryFile(
        max_size=_IN_MEMORY, dir=None if folder is None else str(folder), prefix="inflated-"
    ) as file:
        for piece in _inflated_pieces(data, largest):
            file.write(piece)
        if file.tell() <= _IN_MEMORY:
            file.seek(0)
            yield file.read()
            return
        file.flush()
        with mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            yield mapped


def _inflated_pieces(data: Buffer, largest: int) -> Iterator[bytes]:
    offset = read_file_meta(data).dataset_offset
    yield bytes(data[:offset])
    size = offset
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    position, pending = offset, b""
    try:
        while not inflater.eof:
            if not pending:
                pending = bytes(data[position : position + _INFLATE_STEP])
                position += len(pending)
                if not pending:
                    raise InvalidDicom("The deflated data set is cut short.")
            piece = inflater.decompress(pending, _INFLATE_STEP)
            pending = inflater.unconsumed_tail
            size += len(piece)
            if size > largest:
                raise InvalidDicom(f"The data set inflates to more than {largest} bytes.")
            yield piece
    except zlib.error as error:
        raise InvalidDicom("The data set can't be inflated.") from error


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in {b"UI", b"OB"} else b" "
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _ae_title(title: str) -> bytes:
    return title.encode("ascii", "replace").replace(b"\\", b"?")[:16]

"""Reading the header of a Part 10 file: identifiers, the JSON model, bulk data and frames as byte ranges."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, UnsupportedOperation
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, Final

from libs.dicom.encapsulated import Buffer
from libs.dicom.errors import MISMATCH, UNSUPPORTED_TRANSFER_SYNTAX, InvalidDicom, NotDicom
from libs.dicom.identifiers import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_uid,
)
from libs.dicom.part10 import FileMeta, inflated, read_file_meta
from libs.dicom.pixels import FrameTable, frame_table, text_of
from libs.dicom.walk import DicomJson, Walk

Source = Path | str | Buffer | bytearray | BinaryIO
LARGEST_STREAM: Final = 1024 * 1024 * 1024
"""Bytes read from a source that is neither a file on disk nor in memory."""


@dataclass(frozen=True)
class Header:
    """What is known of an instance without its bulk data.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        study_uid: (0020,000D).
        series_uid: (0020,000E).
        transfer_syntax: (0002,0010).
        modality: (0008,0060); empty when absent.
        frames: where the frames are; none without Pixel Data.
        dicom: the data set as DICOM JSON (PS3.18 annex F), tags ascending; text in Unicode while Specific Character
            Set stays as stored. Pixel Data, binary values over 256 bytes and very long others are
            ``{"vr": ..., "BulkDataURI": PATH}`` with a key of ``bulk``.
        bulk: path (``TAG`` or ``TAG/ITEM/TAG``, items from 1) → ``(offset, length)`` in the file. Of encapsulated
            Pixel Data: all its items, with their headers, without the final delimiter. Of a deflated file: as in what
            ``libs.dicom.part10.inflate`` returns.
        warnings: what is wrong but was lived with, in words, without values.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    modality: str
    frames: FrameTable | None
    dicom: DicomJson
    bulk: Mapping[str, tuple[int, int]]
    warnings: list[str]


def read_header(source: Source) -> Header:
    """Reads everything but bulk data from a Part 10 file.

    Arguments:
        source: the path of the file, an open file (read from its beginning), or all of its bytes.

    Raises:
        NotDicom: it is no Part 10 file.
        InvalidDicom: the data set is broken, out of the bounds of ``libs.dicom.walk``, or one of the four UIDs that
            every composite instance has is missing or malformed.
        OSError: the file can't be read, or what it inflates to can't be written.
    """
    # What a deflated file inflates to lies beside it: that disk was chosen for files of this size.
    folder = Path(source).parent if isinstance(source, str | Path) else None
    with _opened(source) as data:
        return _read(data, folder)


@contextmanager
def _opened(source: Source) -> Iterator[Buffer]:
    if isinstance(source, bytes | memoryview | mmap):
        yield source
    elif isinstance(source, bytearray):
        yield memoryview(source)
    elif isinstance(source, BytesIO):
        yield source.getvalue()
    elif isinstance(source, str | Path):
        with Path(source).open("rb") as file, _mapped(file) as data:
            yield data
    else:
        with _mapped(source) as data:
            yield data


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[Buffer]:
    try:
        data = mmap(file.fileno(), 0, access=ACCESS_READ)
    except (UnsupportedOperation, AttributeError):
        file.seek(0)
        content = file.read(LARGEST_STREAM + 1)
        if len(content) > LARGEST_STREAM:
            raise InvalidDicom(f"The file is larger than {LARGEST_STREAM} bytes.") from None
        yield content
        return
    except ValueError:  # an empty file can't be mapped
        raise NotDicom("The file is empty.") from None
    with data:
        yield data


def _read(data: Buffer, folder: Path | None) -> Header:
    meta = read_file_meta(data)
    if not is_uid(meta.transfer_syntax):
        raise InvalidDicom("The file meta information names no transfer syntax.", UNSUPPORTED_TRANSFER_SYNTAX)
    if meta.transfer_syntax not in DEFLATED:
        return _walked(data, meta)
    with inflated(data, folder) as whole:
        header = _walked(whole, meta)
    if header.frames is not None:
        header.frames["deflated"] = True
    return header


def _walked(data: Buffer, meta: FileMeta) -> Header:
    walk = Walk(data, little=meta.transfer_syntax != EXPLICIT_VR_BIG_ENDIAN)
    dicom = walk.run(meta.dataset_offset, len(data), explicit=meta.transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN)
    return _identified(meta, dicom, walk, frame_table(walk, dicom, meta.transfer_syntax))


def _identified(meta: FileMeta, dicom: DicomJson, walk: Walk, frames: FrameTable | None) -> Header:
    sop_instance_uid = _uid(dicom, "00080018", "SOP Instance UID")
    sop_class_uid = _uid(dicom, "00080016", "SOP Class UID")
    if meta.sop_instance_uid and meta.sop_instance_uid != sop_instance_uid:
        walk.warn("The file meta information names another SOP Instance UID than the data set.")
    if meta.sop_class_uid and meta.sop_class_uid != sop_class_uid:
        walk.warn("The file meta information names another SOP Class UID than the data set.")
    return Header(
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        study_uid=_uid(dicom, "0020000D", "Study Instance UID"),
        series_uid=_uid(dicom, "0020000E", "Series Instance UID"),
        transfer_syntax=meta.transfer_syntax,
        modality=text_of(dicom, "00080060"),
        frames=frames,
        dicom=dicom,
        bulk=walk.bulk,
        warnings=list(walk.warnings),
    )


def _uid(dicom: DicomJson, tag: str, name: str) -> str:
    values = dicom.get(tag, {}).get("Value")
    if not values:
        raise InvalidDicom(f"{name} is missing.", MISMATCH)
    if len(values) != 1 or not is_uid(values[0]):
        raise InvalidDicom(f"{name} is not a valid unique identifier.", MISMATCH)
    return str(values[0])

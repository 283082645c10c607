"""Rewriting a Part 10 file as Explicit VR Little Endian, which every reader knows (PS3.18 section 8.7.3.3)."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from libs.dicom.errors import DicomError, InvalidDicom, InvalidFrame
from libs.dicom.frames import DecodedFrame, PixelAttributes, decode, frame_bytes, frame_count, frame_ranges
from libs.dicom.header import Header, read_header
from libs.dicom.identifiers import DEFLATED, EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax
from libs.dicom.part10 import file_meta, inflate, read_file_meta
from libs.dicom.values import SWAP_WIDTH
from libs.dicom.walk import swapped

LARGEST_RESULT: Final = 2 * 1024**3
"""Bytes of Pixel Data after decoding; all of it is held in memory."""
_SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_TABLE_TAGS: Final = frozenset({"7FE00001", "7FE00002"})
_OFFSET_TABLES: Final = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def to_explicit_little_endian(source: Path | bytes) -> bytes:
    """The Part 10 file as Explicit VR Little Endian, Pixel Data decompressed.

    Photometric Interpretation and Planar Configuration say what the new bytes are; colour that was lossily compressed
    becomes RGB, other colour keeps its values; Lossy Image Compression stays as it is. File meta information is written
    anew. Runs for a while and holds the file in memory: to be called in a process of its own.

    Arguments:
        source: the file, or all of its bytes.

    Returns:
        The new file; the very bytes of the old one where it is in this syntax already.

    Raises:
        InvalidFrame: its frames can't be decoded, or would be larger than 2 GiB.
        DicomError: the file is broken.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    header = read_header(data)
    syntax = header.transfer_syntax
    if syntax == EXPLICIT_VR_LITTLE_ENDIAN:
        return data
    if syntax in DEFLATED:
        data = inflate(data)
    meta = file_meta(
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        source_ae_title=read_file_meta(data).source_ae_title,
    )
    offset = read_file_meta(data).dataset_offset
    if syntax in DEFLATED:
        return meta + data[offset:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = meta + _rewritten(data, header)
            _check_whole(header, read_header(result))
            return result
    except (DicomError, MemoryError):
        raise
    except Exception as error:  # pydicom raises whatever it likes on data sets that it can't write
        raise InvalidDicom("The data set can't be rewritten as Explicit VR Little Endian.") from error


def _rewritten(data: bytes, header: Header) -> bytes:
    """The data set in the new syntax."""
    encapsulated = header.frames is not None and header.frames["kind"] == "encapsulated"
    if encapsulated and sum(header.bulk.get("7FE00010", (0, 0))) == len(data):
        data += _SEQUENCE_END  # pydicom wants the last delimiter
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    if encapsulated:
        _decompress(dataset, data, header)
    elif header.transfer_syntax == EXPLICIT_VR_BIG_ENDIAN:
        _turn_words(dataset)
    if not dataset.original_encoding[0]:
        _read_implicit_elements(dataset)
    out = BytesIO()
    plain = Dataset()
    plain.update(dataset)
    _forget_encoding(plain, dataset)
    pydicom.dcmwrite(out, plain, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return out.getvalue()


def _check_whole(before: Header, after: Header) -> None:
    """What pydicom could not read would be missing from what it has written."""
    lost = before.dicom.keys() - after.dicom.keys() - _TABLE_TAGS
    if lost or before.sop_instance_uid != after.sop_instance_uid:
        raise InvalidDicom("The data set can't be rewritten whole.")


def _decompress(dataset: Dataset, data: bytes, header: Header) -> None:
    attributes = PixelAttributes.of(header.dicom)
    table = header.frames
    if table is None:
        return
    lossless = not transfer_syntax(header.transfer_syntax).lossy
    pieces: list[bytes] = []
    total = 0
    decoded: DecodedFrame | None = None
    for number in range(1, frame_count(table) + 1):
        joined = b"".join(data[o : o + n] for o, n in frame_ranges(table, number))
        decoded = decode(frame_bytes(table, number, joined), attributes, header.transfer_syntax, rgb=not lossless)
        pieces.append(decoded.pixels.astype(decoded.pixels.dtype.newbyteorder("<"), copy=False).tobytes())
        total += len(pieces[-1])
        if total > LARGEST_RESULT:
            raise InvalidFrame(f"The decoded frames are larger than {LARGEST_RESULT} bytes.")
    if decoded is None:
        raise InvalidFrame("The instance has no frame.")
    _describe(dataset, decoded)
    if len(pieces) != attributes.number_of_frames and "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = len(pieces)
    content = b"".join(pieces)
    dataset.PixelData = content + b"\0" if len(content) % 2 else content
    element: Any = dataset["PixelData"]
    element.VR = "OB" if decoded.pixels.dtype.itemsize == 1 else "OW"
    element.is_undefined_length = False
    for keyword in _OFFSET_TABLES:
        if keyword in dataset:
            del dataset[keyword]


def _describe(dataset: Dataset, decoded: DecodedFrame) -> None:
    """Makes the attributes fit the bytes (PS3.5 section 8.2, PS3.3 section C.7.6.3.1)."""
    dataset.PhotometricInterpretation = decoded.photometric_interpretation
    if decoded.pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = decoded.pixels.dtype.itemsize * 8


def _turn_words(dataset: Dataset) -> None:
    """Turns the words of big endian round, since pydicom writes them as it has read them."""
    for element in dataset:
        if str(element.VR) == "SQ":
            for item in element.value:
                _turn_words(item)
            continue
        width = SWAP_WIDTH.get(str(element.VR))
        if width and isinstance(element.value, bytes):
            if element.keyword == "PixelData":  # a pixel of 32 bits is turned as a whole
                width = max(width, int(dataset.get("BitsAllocated") or 0) // 8)
            element.value = swapped(element.value, width)


def _read_implicit_elements(dataset: Dataset) -> None:
    """Elements in implicit VR amid explicit can't be written from their bytes; reading them makes them ordinary."""
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.VR is None:
            _ = dataset[tag]


def _forget_encoding(plain: Dataset, source: Dataset) -> None:
    """Names what the values were read as, so that pydicom converts them when they are written."""
    implicit, little = source.original_encoding
    plain.set_original_encoding(implicit, little, source.original_character_set)

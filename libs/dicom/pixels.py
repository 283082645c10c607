"""The frame table: where each frame is, from the pixel data element and the attributes around it (PS3.5 annex A.4)."""

import struct
from base64 import b64decode
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Literal, NotRequired, TypedDict

from libs.dicom.encapsulated import Buffer, Fragments, PixelElement, offsets_of
from libs.dicom.identifiers import RLE_LOSSLESS, transfer_syntax
from libs.dicom.walk import DicomJson, Walk

MOST_FRAMES: Final = 1_000_000
_STARTS: Final = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""How a compressed frame begins: JPEG and JPEG-LS, a JPEG 2000 code stream, the same in a file wrapper."""


class FrameTable(TypedDict):
    """Where the frames of an instance are, in bytes from the start of the Part 10 file.

    Native Pixel Data: frame ``n`` (from 1) is ``length`` bytes at ``offset + (n - 1) * length``; where ``bits`` is set
    (one bit a pixel, frames that do not end on a byte), it begins at bit ``(n - 1) * bits`` after ``offset``.
    Encapsulated Pixel Data: ``fragments[n - 1]`` lists ``[offset, length]`` of each fragment of frame ``n``; a video is
    one stream and has one entry.
    Where ``deflated`` is true, offsets are those in the file as ``libs.dicom.part10.inflate`` returns it.
    """

    kind: Literal["native", "encapsulated"]
    offset: NotRequired[int]
    length: NotRequired[int]
    count: NotRequired[int]
    bits: NotRequired[int]
    fragments: NotRequired[list[list[list[int]]]]
    deflated: NotRequired[bool]


def frame_table(walk: Walk, dicom: DicomJson, syntax: str) -> FrameTable | None:
    """The table of the instance that was walked; none without Pixel Data. What does not fit becomes a warning."""
    pixels = walk.pixels
    if pixels is None or pixels.length == 0:
        return None
    if pixels.fragments is None:
        if transfer_syntax(syntax).encapsulated:
            walk.warn("Pixel Data is native though the transfer syntax names a compression.")
        return _native(walk, pixels, dicom)
    if not pixels.fragments:
        return None
    count = _frame_count(walk, dicom)
    return {"kind": "encapsulated", "fragments": _grouped(walk, pixels, dicom, count, syntax)}


def integer_of(dicom: DicomJson, tag: str, default: int) -> int:
    """The first value of an attribute, if it is a whole number, else the default."""
    values: list[Any] = dicom.get(tag, {}).get("Value") or [default]
    first = values[0]
    return first if isinstance(first, int) and not isinstance(first, bool) else default


def text_of(dicom: DicomJson, tag: str) -> str:
    """The first value of an attribute, if it is text, else an empty text."""
    values: list[Any] = dicom.get(tag, {}).get("Value") or [""]
    return values[0] if isinstance(values[0], str) else ""


def _frame_count(walk: Walk, dicom: DicomJson) -> int:
    count = integer_of(dicom, "00280008", 1)
    if not 1 <= count <= MOST_FRAMES:
        walk.warn("Number of Frames is not a plausible number; one frame was assumed.")
        return 1
    return count


def _native(walk: Walk, pixels: PixelElement, dicom: DicomJson) -> FrameTable:
    rows, columns = integer_of(dicom, "00280010", 0), integer_of(dicom, "00280011", 0)
    samples = integer_of(dicom, "00280002", 1)
    allocated = {0x7FE00008: 32, 0x7FE00009: 64}.get(pixels.tag) or integer_of(dicom, "00280100", 0)
    if text_of(dicom, "00280004") == "YBR_FULL_422" and samples == 3:
        samples = 2  # the two colour samples are shared by two pixels (PS3.3 section C.7.6.3.1.2)
    bits = rows * columns * samples * allocated
    whole: FrameTable = {"kind": "native", "offset": pixels.offset, "length": pixels.length, "count": 1}
    if bits <= 0:
        walk.warn("Rows, Columns or Bits Allocated is missing; Pixel Data was taken as one frame.")
        return whole
    expected = _frame_count(walk, dicom)
    count = min(expected, pixels.length * 8 // bits)
    if count == 0:
        walk.warn("Pixel Data is shorter than one frame.")
        return whole
    if count < expected:
        walk.warn("Pixel Data holds fewer frames than Number of Frames says.")
    elif pixels.length > (bits * count + 7) // 8 + 1:
        walk.warn("Pixel Data is longer than its frames.")
    table: FrameTable = {"kind": "native", "offset": pixels.offset, "length": (bits + 7) // 8, "count": count}
    if not walk.little and count == 1 and table["length"] % 2:
        # Words are swapped, so the last pixel of an odd frame lies where the padding would be.
        table["length"] = min(table["length"] + 1, pixels.length)
    if bits % 8 and count > 1:
        table["bits"] = bits
    return table


def _grouped(walk: Walk, pixels: PixelElement, dicom: DicomJson, count: int, syntax: str) -> list[list[list[int]]]:
    """The fragments of each frame."""
    fragments = pixels.fragments or Fragments()
    if count == 1 or transfer_syntax(syntax).video:
        return [fragments.all()]
    if len(fragments) == count:
        return [[fragment] for fragment in fragments.all()]
    found = _by_offsets(fragments, _offsets(walk, pixels, dicom, count), count)
    if found is not None:
        return found
    if syntax == RLE_LOSSLESS:
        # A frame has one fragment (PS3.5 section A.4.2), and nothing in it tells where another begins.
        walk.warn("The number of fragments is not Number of Frames.")
        return [[fragment] for fragment in fragments.all()]
    return _by_content(walk, fragments, count)


def _offsets(walk: Walk, pixels: PixelElement, dicom: DicomJson, count: int) -> Sequence[int]:
    """The Extended Offset Table where there is one, else the Basic Offset Table; nothing that has not one a frame."""
    place = walk.bulk.get("7FE00001")
    if place is not None:
        return offsets_of(walk.data, place, 8, count, little=walk.little)
    inline = dicom.get("7FE00001", {}).get("InlineBinary")
    if isinstance(inline, str):
        raw = b64decode(inline)
        return struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
    return offsets_of(walk.data, pixels.table, 4, count, little=walk.little) if pixels.table else ()


def _by_offsets(fragments: Fragments, offsets: Sequence[int], count: int) -> list[list[list[int]]] | None:
    """Grouped by offsets from the first fragment's item; none where the table does not fit the fragments."""
    if len(offsets) != count:
        return None
    base = fragments.offsets[0]
    starts = {offset - base: index for index, offset in enumerate(fragments.offsets)}
    firsts = [starts.get(offset, -1) for offset in offsets]
    if firsts[0] != 0 or any(a >= b for a, b in pairwise(firsts)):
        return None
    return [fragments.between(a, b) for a, b in pairwise([*firsts, len(fragments)])]


def _by_content(walk: Walk, fragments: Fragments, count: int) -> list[list[list[int]]]:
    """Grouped by how a compressed frame begins; where that is not found, a fragment is a frame."""
    firsts = [index for index, offset in enumerate(fragments.offsets) if _begins_frame(walk.data, offset)]
    if len(firsts) != count:
        walk.warn("The number of compressed frames is not Number of Frames.")
    if not firsts or firsts[0] != 0:
        return [[fragment] for fragment in fragments.all()]
    return [fragments.between(a, b) for a, b in pairwise([*firsts, len(fragments)])]


def _begins_frame(data: Buffer, offset: int) -> bool:
    return bytes(data[offset : offset + 8]).startswith(_STARTS)

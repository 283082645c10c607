"""The quick look at who an instance is: where it says anything, the whole reading says the same.

The first byte chooses the transfer syntax, the second how much of the data set is given to it.
"""

from collections.abc import Iterator
from typing import Final

from libs.dicom import DicomError, read_header
from libs.dicom.identifiers import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, JPEG_BASELINE
from libs.dicom.identity import quick_identity
from tests.fuzz.target import Target
from tests.support.dicom_bytes import ITEM_END, SEQUENCE_END, UNDEFINED, element, head, identity, implicit, item

_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, JPEG_BASELINE)


def run(data: bytes) -> None:
    """Compares the two."""
    if len(data) < 2:
        return
    syntax, data_set = _SYNTAXES[data[0] % len(_SYNTAXES)], data[2:]
    beginning = data_set[: len(data_set) - data[1]]
    quick = quick_identity(beginning, syntax, len(data_set))
    if quick is None:
        return
    try:
        header = read_header(head(syntax) + data_set)
    except DicomError:
        return  # it looks into sequences, and at what is wrong
    assert (quick.sop_instance_uid, quick.sop_class_uid, quick.study_uid, quick.series_uid) == (
        header.sop_instance_uid,
        header.sop_class_uid,
        header.study_uid,
        header.series_uid,
    )


def seeds() -> Iterator[bytes]:
    """Data sets with what it looks at and what it passes over."""
    whole = identity()
    ends = (
        b"",
        element(0x00280010, "US", b"\2\0") + element(0x7FE00010, "OW", bytes(64)),
        element(0x00400275, "SQ", item(b"") + SEQUENCE_END, length=UNDEFINED) + element(0x7FE00010, "OW", bytes(64)),
        element(0x00400275, "SQ", item(ITEM_END, length=UNDEFINED) + SEQUENCE_END, length=UNDEFINED),
        element(0x00400275, "SQ", item(element(0x0008113A, "SQ", b""))),
    )
    for end in ends:
        for left_out in (0, 5, 60):
            yield bytes([0, left_out]) + b"".join(whole) + end
    plain = b"".join(
        implicit(int.from_bytes(e[:2], "little") << 16 | int.from_bytes(e[2:4], "little"), e[8:]) for e in whole
    )
    yield b"\1\0" + plain
    yield b"\1\4" + plain + implicit(0x7FE00010, bytes(8))


TARGET: Final = Target("identity", run, seeds, ("libs.dicom",), 2048)

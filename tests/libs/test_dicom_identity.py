"""The quick look at a data set's identifiers never says anything else than the whole reading of its header."""

from collections import Counter

import pytest

from libs.dicom import DicomError, read_header
from libs.dicom.identity import Identity, quick_identity
from libs.dicom.part10 import file_meta, read_file_meta
from tests.support.samples import readable_files

SYNTAX = "1.2.840.10008.1.2.1"


def data_set(file: bytes) -> tuple[bytes, str]:
    meta = read_file_meta(file)
    return file[meta.dataset_offset :], meta.transfer_syntax


def identity_in(file: bytes) -> Identity:
    header = read_header(file)
    return Identity(header.sop_instance_uid, header.sop_class_uid, header.study_uid, header.series_uid)


def test_it_agrees_with_the_whole_reading_of_every_sample() -> None:
    """An image filed under another image's identifiers is lost, or worse."""
    seen: Counter[bool] = Counter()
    for path in readable_files():
        file = path.read_bytes()
        data, syntax = data_set(file)
        quick = quick_identity(data[: 64 * 1024], syntax, len(data))
        seen[quick is not None] += 1
        if quick is not None:
            assert quick == identity_in(file), path
    # Most files in the field are plain; were it otherwise here, it would not be quick.
    assert seen[True] > seen[False]


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return bytes((group & 255, group >> 8, number & 255, number >> 8)) + vr + len(value).to_bytes(2, "little") + value


def plain(**changed: bytes) -> bytes:
    parts = {
        "sop_class": element(0x08, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.2"),
        "instance": element(0x08, 0x18, b"UI", b"1.2.3.4"),
        "name": element(0x10, 0x10, b"PN", b"A^B"),
        "study": element(0x20, 0x0D, b"UI", b"1.2.3"),
        "series": element(0x20, 0x0E, b"UI", b"1.2.3.1"),
        "rest": element(0x20, 0x13, b"IS", b"1 "),
        **changed,
    }
    return b"".join(parts.values())


def test_a_plain_data_set_is_read_at_once() -> None:
    """A scanner waits for each of its images."""
    assert quick_identity(plain(), SYNTAX, len(plain())) == Identity(
        "1.2.3.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.3.1"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 3000,
        b"%PDF-1.7 " * 500,
        plain()[:90],
        plain(study=b""),
        plain(instance=element(0x08, 0x18, b"UI", b"../../etc/passwd")),
        plain(instance=element(0x08, 0x18, b"UI", b"1.2\\1.3")),
        plain(instance=element(0x08, 0x18, b"UI", b"1.2\x001.3")),
        plain(instance=element(0x08, 0x18, b"UI", b"1" * 66)),
        plain(name=element(0x08, 0x18, b"UI", b"1.2.3.5")),
        plain(name=element(0x10, 0x10, b"ZZ", b"odd")),
        plain(name=b"\x10\0\x10\0UN\0\0\xf0\xff\xff\xff"),
        plain() + b"x",
        plain()[:-1],
        plain() + plain(),
        plain(rest=element(0x7FE0, 0x10, b"UT", b"")[:8] + b"\xff\xff\0\0"),
        element(0x00, 0x02, b"UI", b"1.2") + plain(),
    ],
)
def test_what_is_not_plain_is_left_to_the_whole_reading(data: bytes) -> None:
    """What a hostile or broken peer sends must not get past the checks because of a short cut."""
    assert quick_identity(data, SYNTAX, len(data)) is None
    file = file_meta(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax=SYNTAX) + data
    try:
        header = read_header(file)
    except DicomError:
        return
    assert header.sop_instance_uid == "1.2.3.4"


@pytest.mark.parametrize("left_out", range(1, 9))
def test_a_uid_that_is_cut_off_is_no_uid(left_out: int) -> None:
    """The beginning of a Series Instance UID is one too, of another series."""
    data = plain(rest=b"")
    assert quick_identity(data[:-left_out], SYNTAX, len(data)) is None

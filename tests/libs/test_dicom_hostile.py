"""Bytes that lie: a bad file costs its sender a refusal, and nobody else anything."""

import random
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import orjson
import pytest

from libs.dicom import DicomError, Header, InvalidDicom, InvalidUid, NotDicom, is_uid, read_header, require_uid
from libs.dicom.identifiers import DEFLATED_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from libs.dicom.part10 import file_meta, inflate, read_file_meta
from tests.support.dicom_bytes import (
    INSTANCE,
    ITEM_END,
    SEQUENCE_END,
    SERIES,
    SOP_CLASS,
    STUDY,
    UNDEFINED,
    element,
    head,
    identity,
    implicit,
    item,
    part10,
)
from tests.support.samples import Sample, sample, sample_files


def _json(header: Header) -> bytes:
    return orjson.dumps([header.dicom, header.frames, {k: list(v) for k, v in header.bulk.items()}, header.warnings])


def test_a_data_set_without_pixel_data_is_fine() -> None:
    header = read_header(part10(identity()))
    assert (header.sop_instance_uid, header.study_uid, header.series_uid) == (INSTANCE, STUDY, SERIES)
    assert (header.sop_class_uid, header.modality, header.frames, header.warnings) == (SOP_CLASS, "CT", None, [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"DICM",
        bytes(131),
        bytes(132),
        b"%PDF-1.4" + bytes(500),
        b"".join(identity()),  # a bare data set, without preamble and file meta information
        bytes(128) + b"DICN" + bytes(100),
    ],
)
def test_what_is_not_part_10_is_told_so(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for source in (data, memoryview(data), BytesIO(data), path):
        with pytest.raises(NotDicom) as caught:
            read_header(source)
        assert caught.value.failure_reason == 0xC000
        assert caught.value.reason


def test_any_preamble_is_taken() -> None:
    good = part10(identity())
    for preamble in (b"MZ" + bytes(126), b"\x7fELF" + bytes(124), b"II*\0" + bytes(124), b"\xff" * 128):
        assert read_header(preamble + good[128:]).sop_instance_uid == INSTANCE


def test_the_source_may_be_a_path_a_file_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = part10(identity())
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(50)
        found = [read_header(source) for source in (path, str(path), data, bytearray(data), BytesIO(data), file)]
    assert all(header == found[0] for header in found)


@pytest.mark.parametrize("missing", [0, 1, 3, 4])
def test_each_identifier_is_required(missing: int) -> None:
    elements = identity()
    del elements[missing]
    with pytest.raises(InvalidDicom, match="missing") as caught:
        read_header(part10(elements))
    assert caught.value.failure_reason == 0xA900


@pytest.mark.parametrize(
    "uid",
    [
        "../../etc/passwd",
        "1.2/3",
        "1.2.3;$(id)",
        "1..2",
        ".1",
        "1.",
        "1.2\0.3",
        "1.2 3",
        "",
        "1" * 65,
        "1.2\\1.3",
        "１.2",
    ],
)
def test_a_uid_that_is_none_is_refused(uid: str) -> None:
    assert not is_uid(uid)
    with pytest.raises(InvalidUid):
        require_uid(uid)
    if uid != "１.2":
        for name in ("instance", "study", "series", "sop_class"):
            with pytest.raises(InvalidDicom) as caught:
                read_header(part10(identity(**{name: uid})))
            assert caught.value.failure_reason == 0xA900
            assert uid[:4] not in caught.value.reason or len(uid) < 4


def test_uids_of_real_devices_are_taken() -> None:
    assert is_uid("1.2.840.010.3")  # a leading zero, against the standard
    assert is_uid("0." + "1" * 62)
    assert not is_uid(None)


def test_two_different_identifiers_are_refused() -> None:
    second = element(0x00080018, "UI", b"9.9.9\0")
    with pytest.raises(InvalidDicom, match="twice"):
        read_header(part10([*identity(), second]))


def test_two_different_identifiers_are_refused_wherever_they_stand() -> None:
    # The second one follows smaller tags, so that it looks as if it were in order.
    rest = [element(0x00080060, "CS", b"CT"), element(0x0020000D, "UI", b"9.9.9\0")]
    with pytest.raises(InvalidDicom, match="twice"):
        read_header(part10(identity()) + b"".join(rest))


@pytest.mark.parametrize("length", [0xFFFFFFF0, 0x7FFFFFFF, 100_000])
@pytest.mark.parametrize("vr", ["UN", "OB", "SQ", "UT"])
def test_a_length_that_lies_is_refused(length: int, vr: str) -> None:
    for tag in (0x00091001, 0x7FE00010):
        with pytest.raises(InvalidDicom):
            read_header(part10([*identity(), element(tag, vr, b"abcd", length=length)]))


def test_lengths_that_lie_inside_sequences_are_refused() -> None:
    inner = element(0x00080100, "SH", b"ab", length=500)
    for content in (
        item(inner),
        item(b"", length=500),
        item(inner, length=UNDEFINED),
        element(0x00080100, "SH", b"ab"),
    ):
        for length in (len(content), UNDEFINED):
            with pytest.raises(InvalidDicom):
                read_header(part10([*identity(), element(0x00400275, "SQ", content, length=length)]))


def _nested(depth: int, *, defined: bool) -> bytes:
    content = b""
    for _ in range(depth):
        if defined:
            content = element(0x00400275, "SQ", item(content))
        else:
            inner = item(content + ITEM_END, length=UNDEFINED)
            content = element(0x00400275, "SQ", inner + SEQUENCE_END, length=UNDEFINED)
    return content


@pytest.mark.parametrize("defined", [True, False])
def test_nesting_is_bounded(defined: bool) -> None:
    header = read_header(part10([*identity(), _nested(30, defined=defined)]))
    assert "00400275" in header.dicom
    for depth in (40, 200, 5000):
        with pytest.raises(InvalidDicom, match="nested"):
            read_header(part10([*identity(), _nested(depth, defined=defined)]))


def test_the_number_of_elements_is_bounded_in_memory_and_time() -> None:
    private = b"".join(element(0x00110000 | i, "LO", b"") for i in range(0x10, 0xFFFF))
    many = b"".join(struct.pack("<HH", group, 0x10) + private[4:] for group in range(0x11, 0x19, 2))
    with pytest.raises(InvalidDicom, match="elements"):
        read_header(part10(identity()) + many)


def _peak(data: bytes) -> tuple[Header | DicomError, float]:
    """What became of it, and how many MiB it took at most."""
    tracemalloc.start()
    try:
        found: Header | DicomError = read_header(data)
    except DicomError as error:
        found = error
    peak = tracemalloc.get_traced_memory()[1] / (1 << 20)
    tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize("defined", [True, False])
def test_a_sequence_of_very_many_elements_is_stored_as_it_is(defined: bool) -> None:
    """A slide of a microscope describes each of its hundred thousand tiles; it must not be turned away."""
    inner = element(0x0048021E, "SL", b"abcd") + element(0x0048021F, "SL", b"abcd")
    one = item(inner) if defined else item(inner + ITEM_END, length=UNDEFINED)
    content = one * 75_000
    tiles = element(
        0x52009230, "SQ", content + (b"" if defined else SEQUENCE_END), length=None if defined else UNDEFINED
    )
    small = element(0x00400555, "SQ", item(inner))
    found = read_header(part10([*identity(), small, tiles, element(0x7FE00010, "OW", b"12")]))
    assert found.dicom["00400555"]["Value"][0]["0048021E"]["Value"]
    assert found.dicom["52009230"] == {"vr": "SQ", "BulkDataURI": "52009230"}
    assert found.bulk["52009230"][1] == len(content)
    assert found.dicom["7FE00010"]["BulkDataURI"] == "7FE00010"
    assert "described" in found.warnings[0]
    assert list(found.bulk) == ["52009230", "7FE00010"]


@pytest.mark.parametrize("broken", [ITEM_END, SEQUENCE_END[:7], b"", element(0x0048021E, "SL", b"", length=9000)])
def test_a_sequence_that_is_not_described_must_be_whole_all_the_same(broken: bytes) -> None:
    one = item(element(0x0048021E, "SL", b"abcd") + ITEM_END, length=UNDEFINED)
    content = element(0x52009230, "SQ", one * 130_000 + broken, length=UNDEFINED)
    with pytest.raises(InvalidDicom):
        read_header(part10([*identity(), content]))


@pytest.mark.parametrize(
    ("vr", "value", "count"),
    [
        ("LO", b"ab\\" * 85, 100_000),
        ("UC", b"\\" * 64_000, 400),
        ("US", b"\1\2" * 128, 100_000),
        ("PN", b"ab^c=d=e", 80_000),
        ("PN", b"a=b\\" * 16_000, 100),
        ("UN", b"x" * 250, 100_000),
        ("DS", b"1.5\\" * 16_000, 100),
        ("LT", "😀".encode() + b"a" * 60_000, 200),
        ("UN", b"x" * 300, 100_000),
    ],
)
def test_values_are_bounded_in_memory(vr: str, value: bytes, count: int) -> None:
    """Fifty megabytes of short values once took a gigabyte."""
    tags = (group << 16 | number for group in (0x21, 0x23) for number in range(0x1000, 0xFFFF))
    many = b"".join(element(tag, vr, value) for tag, _ in zip(tags, range(count), strict=False))
    found, peak = _peak(part10([*identity(), element(0x00080005, "CS", b"ISO_IR 192")]) + many)
    assert peak < 64, peak
    assert isinstance(found, DicomError) or len(found.dicom) == count + 6


@pytest.mark.parametrize("tag", [0x7FE00001, None])
def test_an_offset_table_of_any_length_takes_no_memory(tag: int | None) -> None:
    """The length of a table is whatever the sender declares; each number in it would take four times its bytes."""
    table = item(bytes(64 << 20)) if tag is None else item(b"")
    frames = element(0x7FE00010, "OB", table + item(b"ab") * 4 + SEQUENCE_END, length=UNDEFINED)
    extended = [element(tag, "OV", bytes(64 << 20))] if tag else []
    data = part10([*identity(), element(0x00280008, "IS", b"2 "), *extended, frames], syntax="1.2.840.10008.1.2.4.50")
    found, peak = _peak(data)
    assert isinstance(found, Header)
    assert found.frames is not None
    assert peak < 8


def test_very_many_fragments_take_bounded_memory() -> None:
    content = item(b"") * 262_145 + SEQUENCE_END
    frames = element(0x7FE00010, "OB", content, length=UNDEFINED)
    count = element(0x00280008, "IS", b"262144")
    found, peak = _peak(part10([*identity(), count, frames], syntax="1.2.840.10008.1.2.4.50"))
    assert isinstance(found, Header)
    assert peak < 64, peak


def test_a_hundred_thousand_private_tags_are_taken() -> None:
    private = b"".join(element(0x00110000 | i, "LO", b"ab") for i in range(0x1000, 0xFFFF))
    header = read_header(part10(identity()) + private)
    assert len(header.dicom) == 5 + 0xEFFF


def test_fragments_are_bounded() -> None:
    fragments = element(0x7FE00010, "OB", item(b"") * 400_000 + SEQUENCE_END, length=UNDEFINED)
    with pytest.raises(InvalidDicom, match="fragments"):
        read_header(part10([*identity(), fragments], syntax="1.2.840.10008.1.2.4.50"))


def test_a_deflate_bomb_stays_small_in_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(400)) + packer.flush()
    assert len(bomb) < 500_000
    tracemalloc.start()
    with pytest.raises(InvalidDicom, match="inflates"):
        inflate(head(DEFLATED_LITTLE_ENDIAN) + bomb, largest=16 * 1024 * 1024)
    assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    tracemalloc.stop()
    found, peak = _peak(head(DEFLATED_LITTLE_ENDIAN) + bomb)
    assert "inflates" in str(found)
    assert peak < 16


def test_a_large_deflated_image_is_read_without_holding_it(tmp_path: Path) -> None:
    """300 MB of pixels that deflate no better than pixels do are an image, and no bomb."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    noise = random.Random(1).randbytes(1 << 20) + bytes(9 << 20)
    pixels = 30 * len(noise)
    start = b"".join([*identity()[:3], *identity()[3:]]) + element(0x7FE00010, "OW", b"", length=pixels)
    deflated = packer.compress(start) + b"".join(packer.compress(noise) for _ in range(30)) + packer.flush()
    path = tmp_path / "large.dcm"
    path.write_bytes(head(DEFLATED_LITTLE_ENDIAN) + deflated)
    tracemalloc.start()
    header = read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    tracemalloc.stop()
    assert header.bulk["7FE00010"][1] == pixels
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_a_broken_deflated_file_is_refused() -> None:
    whole = sample("image_dfl.dcm").path.read_bytes()
    for cut in (len(whole) // 2, 400, 340):
        with pytest.raises(DicomError):
            read_header(whole[:cut])
    with pytest.raises(InvalidDicom):
        read_header(head(DEFLATED_LITTLE_ENDIAN) + b"\xff" * 100)


def test_u_0000_never_reaches_the_catalog() -> None:
    header = read_header(
        part10(
            [
                *identity(),
                element(0x00080005, "CS", b"ISO_IR 100"),
                element(0x00100010, "PN", b"Do\0e^J\0ane\0\0"),
                element(0x00100020, "LO", b"1\0002\0\0\0"),
                element(0x00081030, "LO", b"a\0\\b\0b"),
                element(0x00104000, "LT", b"x\0y "),
                element(0x00200013, "IS", b"1\0002 "),
            ]
        )
    )
    assert header.dicom["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    assert header.dicom["00100020"]["Value"] == ["12"]
    assert header.dicom["00081030"]["Value"] == ["a", "bb"]
    assert header.dicom["00104000"]["Value"] == ["xy"]
    assert b"\\u0000" not in _json(header)
    assert any("U+0000" in warning for warning in header.warnings)


def test_numbers_that_are_none_keep_their_text() -> None:
    header = read_header(
        part10(
            [
                *identity(),
                element(0x00280030, "DS", b"1.5\\wide"),
                element(0x00181151, "DS", b"nan "),
                element(0x00181152, "DS", b"1e999 "),
                element(0x00200013, "IS", b"1_0 "),
                element(0x00280008, "IS", b" 7\\\\-2 "),
                element(0x00200011, "IS", b"3.0 "),
                element(0x00281050, "DS", b"+.5\\-1E2"),
                element(0x00189087, "FD", struct.pack("<3d", float("nan"), float("inf"), 2.5)),
            ]
        )
    )
    values = {tag: entry.get("Value") for tag, entry in header.dicom.items()}
    assert values["00280030"] == [1.5, "wide"]
    assert values["00181151"] == ["nan"]
    assert values["00181152"] == ["1e999"]
    assert values["00200013"] == ["1_0"]
    assert values["00280008"] == [7, None, -2]
    assert values["00200011"] == [3]
    assert values["00281050"] == [0.5, -100]
    assert values["00189087"] == ["NaN", "inf", 2.5]
    assert len(header.warnings) == 1
    orjson.loads(_json(header))


@pytest.mark.parametrize(
    ("term", "raw", "text"),
    [
        (b"", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", "田中^太郎".encode(), "田中^太郎"),
        (b"ISO_IR 192", b"caf\xc0\xaf\xff", "caf\ufffd\ufffd\ufffd"),  # overlong: shown, never decoded
        (b"GB18030", "中\u4e5c文".encode("gb18030"), "中\u4e5c文"),
        (b"GBK ", "誠\u4e5c".encode("gbk"), "誠\u4e5c"),
        (b"ISO_IR 666", b"abc", "abc"),
        (b"\\ISO 2022 IR 87", b"a\x1b$B;3ED\x1b(B^b", "a山田^b"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        (b"\\ISO 2022 IR 58", b"\x1b$)A\xcd\xf5", "王"),
        (b"ISO 2022 IR 100", b"\x1b$Q\xe9", None),  # an escape sequence that does not exist
        (b"\\ISO 2022 IR 87", b"\x1b", None),
    ],
)
def test_character_sets(term: bytes, raw: bytes, text: str | None) -> None:
    header = read_header(part10([*identity(), element(0x00080005, "CS", term), element(0x00081030, "LO", raw)]))
    found = header.dicom["00081030"].get("Value", [""])[0]
    if text is None:
        assert header.warnings
    else:
        assert found == text
    _json(header).decode()


def test_a_backslash_inside_a_multibyte_character_is_no_delimiter() -> None:
    raw = "乗\\b".encode("gb18030")
    assert raw.count(b"\\") == 2  # one is a part of the character
    header = read_header(part10([*identity(), element(0x00080005, "CS", b"GB18030"), element(0x00081030, "LO", raw)]))
    assert header.dicom["00081030"]["Value"] == ["乗", "b"]


def test_a_wrong_form_of_value_representation_is_survived() -> None:
    explicit = b"".join(identity())
    plain = b"".join(
        (
            implicit(0x00080016, SOP_CLASS.encode() + b"\0"),
            implicit(0x00080018, INSTANCE.encode() + b"\0"),
            implicit(0x0020000D, STUDY.encode() + b"\0"),
            implicit(0x0020000E, SERIES.encode() + b"\0"),
        )
    )
    assert "form" in read_header(head(IMPLICIT_VR_LITTLE_ENDIAN) + explicit).warnings[0]
    assert "form" in read_header(head() + plain).warnings[0]


def test_odd_value_representations_are_survived() -> None:
    extra = [
        struct.pack("<HH2sHI", 0x0011, 0x1010, b"ZZ", 0, 4) + b"abcd",
        struct.pack("<HH2sH", 0x0011, 0x1011, b"ZY", 4) + b"abcd",
        implicit(0x00111012, b"abcd"),
    ]
    header = read_header(part10([*identity(), *extra]))
    assert [header.dicom[tag]["vr"] for tag in ("00111010", "00111011", "00111012")] == ["UN", "UN", "UN"]
    assert header.warnings


def test_zeros_after_the_data_set_are_survived_and_rubbish_is_not() -> None:
    good = part10(identity())
    assert "Zero" in read_header(good + bytes(1000)).warnings[0]
    with pytest.raises(InvalidDicom):
        read_header(good + b"\x7f" * 5)


def test_file_meta_information_that_lies() -> None:
    good = head()
    body = b"".join(identity())
    wrong_length = bytearray(good)
    wrong_length[140:144] = b"\xff\xff\xff\xff"
    assert read_header(bytes(wrong_length) + body).sop_instance_uid == INSTANCE
    without_syntax = good[:132] + element(0x00020003, "UI", b"1.2.3.4\0")
    with pytest.raises(InvalidDicom, match="transfer syntax") as caught:
        read_header(without_syntax + body)
    assert caught.value.failure_reason == 0xC122
    with pytest.raises(InvalidDicom):
        read_header(good[:132] + element(0x00020001, "OB", b"ab", length=0xFFFFFFF0) + body)
    with pytest.raises(InvalidDicom):
        read_header(good[:132] + element(0x00020003, "??", b"ab") + body)
    other = file_meta(sop_class_uid=SOP_CLASS, sop_instance_uid="9.9", transfer_syntax="1.2.840.10008.1.2.1")
    assert "another SOP Instance UID" in read_header(other + body).warnings[0]


def test_a_file_meta_group_is_written_as_the_standard_says() -> None:
    raw = file_meta(
        sop_class_uid=SOP_CLASS, sop_instance_uid=INSTANCE, transfer_syntax="1.2.3", source_ae_title="EDGE-1"
    )
    meta = read_file_meta(raw)
    assert (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax) == (SOP_CLASS, INSTANCE, "1.2.3")
    assert (meta.source_ae_title, meta.dataset_offset) == ("EDGE-1", len(raw))
    assert struct.unpack("<I", raw[140:144]) == (len(raw) - 144,)
    with pytest.raises(InvalidUid):
        file_meta(sop_class_uid=SOP_CLASS, sop_instance_uid="../x", transfer_syntax="1.2.3")


def test_long_values_do_not_fill_memory() -> None:
    text = b"x" * 1_000_000
    header = read_header(part10([*identity(), element(0x00420010, "UT", text), element(0x00091001, "UN", text)]))
    for tag in ("00420010", "00091001"):
        assert header.dicom[tag]["BulkDataURI"] == tag
        assert header.bulk[tag][1] == len(text)


def test_big_endian_words_are_little_endian_in_json() -> None:
    source = sample("MR_small_bigendian.dcm").header
    reference = sample("MR_small.dcm").header
    assert source.transfer_syntax == EXPLICIT_VR_BIG_ENDIAN
    assert source.dicom["00280010"] == reference.dicom["00280010"]


def _mutations(data: bytes, chance: random.Random) -> list[bytes]:
    limit = min(len(data), 20_000)
    found = [data[: chance.randrange(limit)] for _ in range(12)]
    for _ in range(24):
        flipped = bytearray(data[:60_000])
        for _ in range(chance.choice((1, 1, 3, 30))):
            flipped[chance.randrange(128, min(limit, len(flipped)))] = chance.choice((0, 0xFF, chance.randrange(256)))
        found.append(bytes(flipped))
    for _ in range(8):
        at, size = chance.randrange(132, limit), chance.randrange(1, 64)
        found.append(data[:at] + chance.randbytes(size) + data[at:60_000])
        found.append(data[:at] + data[at + size : 60_000])
    return found


@pytest.mark.parametrize("real", sample_files(), ids=lambda real: real.name)
def test_broken_versions_of_real_files_end_in_a_typed_error_or_a_header(real: Sample) -> None:
    data = real.path.read_bytes()[:400_000]
    for number, mutation in enumerate(_mutations(data, random.Random(real.name))):
        began = time.monotonic()
        with suppress(DicomError):
            orjson.loads(_json(read_header(mutation)))
        assert time.monotonic() - began < 2, number

"""Frames: the pixels that a reader sees are those that were stored."""

import pickle
import random
import struct
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import simplejpeg
from pydicom.pixels.utils import pixel_array

from libs.dicom import DicomError, Header, InvalidFrame, read_header
from libs.dicom.codestream import dimensions
from libs.dicom.frames import PixelAttributes, decode_frame, frame_bytes, frame_count, frame_ranges
from libs.dicom.part10 import inflate
from libs.dicom.pixels import FrameTable
from libs.dicom.rendering import bulk_for_rendering, render
from libs.dicom.transcoding import to_explicit_little_endian
from tests.support.dicom_bytes import SEQUENCE_END, UNDEFINED, element, identity, item, part10
from tests.support.samples import every_file, readable_files, sample

Pixels = npt.NDArray[Any]

UNDECODABLE = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "the code stream was tampered with and names three billion columns",
}
WITHOUT_REFERENCE = {
    "JPEG-lossy.dcm": "pydicom's codecs refuse its scan header",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "pydicom reads nothing without the last delimiter",
    "badVR.dcm": "pydicom raises on its Number of Frames",
}


def _content(path: Path, header: Header) -> bytes:
    data = path.read_bytes()
    return inflate(data) if header.frames is not None and header.frames.get("deflated") else data


def _frame(data: bytes, table: FrameTable, number: int) -> bytes:
    joined = b"".join(data[offset : offset + length] for offset, length in frame_ranges(table, number))
    return frame_bytes(table, number, joined)


def _first_frame(name: str) -> tuple[bytes, Header, dict[str, bytes]]:
    header = sample(name).header
    data = _content(sample(name).path, header)
    assert header.frames is not None
    bulk = {tag: data[header.bulk[tag][0] :][: header.bulk[tag][1]] for tag in bulk_for_rendering(header.dicom)}
    return _frame(data, header.frames, 1), header, bulk


def _with_frames() -> list[Path]:
    return [path for path in readable_files() if read_header(path).frames is not None]


def _small(paths: list[Path]) -> list[Path]:
    """Without the few large ones, whose decoding takes seconds."""
    return [path for path in paths if path.stat().st_size < 500_000 or path.name.endswith(("UNCR.dcm", "UNCI.dcm"))]


@pytest.mark.parametrize("path", _with_frames(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_decoded_frames_equal_those_of_pydicom(path: Path) -> None:
    header = read_header(path)
    data = _content(path, header)
    table = header.frames
    assert table is not None
    numbers = range(1, min(frame_count(table), 3) + 1)
    if path.name in UNDECODABLE:
        numbers = range(1, frame_count(table) + 1)
        with pytest.raises(InvalidFrame):
            _decoded(header, data, table, numbers)
        return
    try:
        attributes = PixelAttributes.of(header.dicom)
    except InvalidFrame:
        assert path.parent.parent.name.startswith(("dicomdirtests", "7", "9")), "only cut test pictures have none"
        return
    found = _decoded(header, data, table, numbers)
    assert found.shape[1:3] == (attributes.rows, attributes.columns)
    if path.name in WITHOUT_REFERENCE:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, pixels in enumerate(found):
            one = frame_count(table) == 1
            expected = pydicom.dcmread(path).pixel_array if one else pixel_array(path, index=number)
            assert np.array_equal(pixels, expected)


def _decoded(header: Header, data: bytes, table: FrameTable, numbers: range) -> Pixels:
    attributes = PixelAttributes.of(header.dicom)
    return np.stack(
        [decode_frame(_frame(data, table, number), attributes, header.transfer_syntax) for number in numbers]
    )


def test_htj2k_decodes_to_the_same_pixels() -> None:
    import imagecodecs

    frame, header, _ = _first_frame("CT_small.dcm")
    attributes = PixelAttributes.of(header.dicom)
    pixels = decode_frame(frame, attributes, header.transfer_syntax)
    encoded = imagecodecs.htj2k_encode(pixels, tlm=True)
    for syntax in ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"):
        assert np.array_equal(decode_frame(bytes(encoded), attributes, syntax), pixels)


# Frame tables ----------------------------------------------------------------------------------------------------


def _image(frames: int, pixel_data: bytes, *, bits: int = 8, extra: tuple[bytes, ...] = ()) -> list[bytes]:
    return [
        *identity(),
        element(0x00280002, "US", struct.pack("<H", 1)),
        element(0x00280004, "CS", b"MONOCHROME2 "),
        element(0x00280008, "IS", f"{frames:<4}".encode()),
        element(0x00280010, "US", struct.pack("<H", 3)),
        element(0x00280011, "US", struct.pack("<H", 5)),
        element(0x00280100, "US", struct.pack("<H", bits)),
        element(0x00280101, "US", struct.pack("<H", bits)),
        element(0x00280103, "US", struct.pack("<H", 0)),
        *extra,
        pixel_data,
    ]


def _encapsulated(*fragments: bytes, offsets: bytes = b"") -> bytes:
    content = item(offsets) + b"".join(item(fragment) for fragment in fragments) + SEQUENCE_END
    return element(0x7FE00010, "OB", content, length=UNDEFINED)


JPEG = "1.2.840.10008.1.2.4.50"
A, B, C = b"\xff\xd8AAAA", b"\xff\xd8BB", b"\xff\xd8CCCCCC"
REST = b"rest"


@pytest.mark.parametrize(
    ("count", "pixel_data", "extra", "expected"),
    [
        (3, _encapsulated(A, B, C), (), [A, B, C]),
        (1, _encapsulated(A, REST), (), [A + REST]),
        (2, _encapsulated(A, REST, B, offsets=struct.pack("<2I", 0, 26)), (), [A + REST, B]),
        (2, _encapsulated(A, REST, B), (), [A + REST, B]),  # no table: by how a frame begins
        (2, _encapsulated(A, REST, B, offsets=struct.pack("<2I", 0, 27)), (), [A + REST, B]),  # a table that lies
        (2, _encapsulated(A, REST, B, offsets=struct.pack("<I", 0)), (), [A + REST, B]),
        (
            2,
            _encapsulated(A, REST, B),
            (element(0x7FE00001, "OV", struct.pack("<2Q", 0, 26)),),
            [A + REST, B],
        ),
    ],
)
def test_fragments_are_put_together_to_frames(
    count: int, pixel_data: bytes, extra: tuple[bytes, ...], expected: list[bytes]
) -> None:
    data = part10(_image(count, pixel_data, extra=extra), syntax=JPEG)
    header = read_header(data)
    assert header.frames is not None
    assert [_frame(data, header.frames, number + 1) for number in range(frame_count(header.frames))] == expected
    assert header.warnings == []


@pytest.mark.parametrize("fragments", [(A, B, C), (A,), (REST, REST, REST), (A, REST, REST)])
def test_a_wrong_number_of_fragments_is_said_and_survived(fragments: tuple[bytes, ...]) -> None:
    header = read_header(part10(_image(2, _encapsulated(*fragments)), syntax=JPEG))
    assert frame_count(header.frames) >= 1
    assert any("Number of Frames" in warning for warning in header.warnings)


def test_pixel_data_without_fragments_has_no_frames() -> None:
    header = read_header(part10(_image(1, element(0x7FE00010, "OB", SEQUENCE_END, length=UNDEFINED)), syntax=JPEG))
    assert header.frames is None


def test_frames_of_one_bit_a_pixel_are_found_between_the_bits() -> None:
    chance = random.Random(1)
    frames = [np.array([chance.randrange(2) for _ in range(15)], np.uint8) for _ in range(5)]
    packed = np.packbits(np.concatenate(frames), bitorder="little").tobytes()
    data = part10(_image(5, element(0x7FE00010, "OB", packed), bits=1))
    header = read_header(data)
    assert header.frames is not None
    attributes = PixelAttributes.of(header.dicom)
    for number, expected in enumerate(frames, 1):
        found = decode_frame(_frame(data, header.frames, number), attributes, header.transfer_syntax)
        assert np.array_equal(found.ravel(), expected)


@pytest.mark.parametrize(("length", "warning"), [(30, ""), (29, "fewer"), (10, "shorter"), (46, "longer"), (31, "")])
def test_native_pixel_data_of_a_wrong_length_is_said(length: int, warning: str) -> None:
    header = read_header(part10(_image(2, element(0x7FE00010, "OB", bytes(length)))))
    assert frame_count(header.frames) == (2 if length >= 30 else 1)
    assert [warning in text for text in header.warnings] == ([True] if warning else [])


def test_there_is_no_frame_outside_of_the_table() -> None:
    table = sample("emri_small.dcm").header.frames
    assert table is not None
    assert frame_count(table) == 10
    for number in (0, -1, 11, 10**9):
        with pytest.raises(InvalidFrame):
            frame_ranges(table, number)
    with pytest.raises(InvalidFrame):
        frame_bytes(table, 1, b"short")
    assert frame_count(None) == 0


# Hostile frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"00280010": 0},
        {"00280010": 2**32 - 1},
        {"00280010": 40_000, "00280011": 40_000},
        {"00280002": 3},
        {"00280002": 100},
        {"00280100": 7},
        {"00280101": 99},
        {"00280103": 9},
        {"00280004": "NONSENSE"},
        {"00280011": 64},
    ],
)
def test_attributes_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        frame, header, _ = _first_frame(name)
        if name == "MR_small_RLE.dcm" and change == {"00280011": 64}:
            continue
        dicom = {**header.dicom, **{tag: {"vr": "US", "Value": [value]} for tag, value in change.items()}}
        if all(header.dicom[tag].get("Value") == [value] for tag, value in change.items()):
            continue
        with suppress(InvalidFrame):
            render(frame, dicom, header.transfer_syntax)
            assert change == {"00280011": 64}, "native data of more columns than asked for is cut"


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
    ],
)
def test_broken_frames_end_in_a_picture_or_a_typed_error(name: str) -> None:
    frame, header, _ = _first_frame(name)
    chance = random.Random(name)
    for _ in range(25):
        broken = bytearray(frame)
        for _ in range(chance.choice((1, 4, 40))):
            broken[chance.randrange(min(len(broken), 2000))] = chance.randrange(256)
        began = time.monotonic()
        with suppress(InvalidFrame):
            render(
                bytes(broken[: chance.choice((len(broken), len(broken) // 2))]), header.dicom, header.transfer_syntax
            )
        assert time.monotonic() - began < 5
    for tiny in (b"", b"\xff", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  " + bytes(20)):
        with pytest.raises(InvalidFrame):
            render(tiny, header.dicom, header.transfer_syntax)


def test_a_code_stream_that_names_more_pixels_than_the_instance_is_not_decoded() -> None:
    frame, header, _ = _first_frame("MR_small_jp2klossless.dcm")
    bomb = bytearray(frame)
    at = bomb.index(b"\xff\x4f\xff\x51")
    bomb[at + 8 : at + 16] = struct.pack(">II", 60_000, 60_000)
    assert dimensions(bytes(bomb[at:])) == (60_000, 60_000, 1)
    with pytest.raises(InvalidFrame, match="dimensions"):
        decode_frame(bytes(bomb), PixelAttributes.of(header.dicom), header.transfer_syntax)


def test_syntaxes_that_can_not_be_decoded_are_refused() -> None:
    frame, header, _ = _first_frame("CT_small.dcm")
    for syntax in ("1.2.840.10008.1.2.4.102", "1.2.3.4", ""):
        with pytest.raises(InvalidFrame):
            render(frame, header.dicom, syntax)


# Rendering -------------------------------------------------------------------------------------------------------


def _shown(name: str, **options: Any) -> Pixels:
    frame, header, bulk = _first_frame(name)
    picture = simplejpeg.decode_jpeg(render(frame, header.dicom, header.transfer_syntax, bulk=bulk, **options))
    return np.asarray(picture)


@pytest.mark.parametrize("path", _small(_with_frames()), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_picture_can_be_shown(path: Path) -> None:
    header = read_header(path)
    data = _content(path, header)
    assert header.frames is not None
    bulk = {tag: data[header.bulk[tag][0] :][: header.bulk[tag][1]] for tag in bulk_for_rendering(header.dicom)}
    try:
        PixelAttributes.of(header.dicom)
    except InvalidFrame:
        return
    if path.name == "JPEG2000-embedded-sequence-delimiter.dcm":
        return
    picture = render(
        _frame(data, header.frames, 1), header.dicom, header.transfer_syntax, viewport=(128, 128), bulk=bulk
    )
    assert max(simplejpeg.decode_jpeg_header(picture)[:2]) <= 128


def test_a_viewport_keeps_the_ratio_and_enlarges_nothing() -> None:
    assert _shown("JPGExtended.dcm").shape[:2] == (1024, 256)
    assert _shown("JPGExtended.dcm", viewport=(256, 256)).shape[:2] == (256, 64)
    assert _shown("JPGExtended.dcm", viewport=(64, 1000)).shape[:2] == (256, 64)
    assert _shown("CT_small.dcm", viewport=(4000, 4000)).shape[:2] == (128, 128)
    assert _shown("JPGExtended.dcm", viewport=(1, 1)).shape[:2] == (1, 1)


def test_a_window_shows_what_is_asked_for() -> None:
    frame, header, _ = _first_frame("CT_small.dcm")
    pixels = decode_frame(frame, PixelAttributes.of(header.dicom), header.transfer_syntax)
    slope, intercept = header.dicom["00281053"]["Value"][0], header.dicom["00281052"]["Value"][0]
    units = pixels * slope + intercept
    shown = _shown("CT_small.dcm", window=(40, 400), quality=100)[..., 0].astype(int)
    expected = np.clip(((units - 39.5) / 399 + 0.5) * 255, 0, 255)
    assert np.abs(shown - expected).mean() < 1.5
    assert _shown("CT_small.dcm", window=(-5000, 1)).min() > 250
    assert _shown("CT_small.dcm", window=(50_000, 1)).max() < 5


def test_monochrome1_is_the_other_way_round() -> None:
    frame, header, _ = _first_frame("CT_small.dcm")
    inverted = {**header.dicom, "00280004": {"vr": "CS", "Value": ["MONOCHROME1"]}}
    normal = simplejpeg.decode_jpeg(render(frame, header.dicom, header.transfer_syntax, window=(40, 400)))
    turned = simplejpeg.decode_jpeg(render(frame, inverted, header.transfer_syntax, window=(40, 400)))
    assert np.abs(255 - normal.astype(int) - turned).mean() < 2


def test_colours_are_right() -> None:
    for name in (
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_rle_2frame.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_expb.dcm",
    ):
        picture = _shown(name).astype(int)
        assert np.abs(picture[5, 50] - (255, 0, 0)).max() < 12, name
        assert np.abs(picture[25, 50] - (0, 255, 0)).max() < 12, name
        assert np.abs(picture[45, 50] - (0, 0, 255)).max() < 12, name


def test_a_palette_gives_the_colours_that_pydicom_gives() -> None:
    from pydicom.pixels.processing import apply_color_lut

    dataset = pydicom.dcmread(sample("examples_palette.dcm").path)
    expected = apply_color_lut(dataset.pixel_array, dataset) >> 8
    found = _shown("examples_palette.dcm", quality=100).astype(int)
    assert np.abs(found - expected).mean() < 2
    frame, header, _ = _first_frame("examples_palette.dcm")
    if bulk_for_rendering(header.dicom):
        with pytest.raises(InvalidFrame, match="palette"):
            render(frame, header.dicom, header.transfer_syntax)


def test_lookup_tables_are_applied() -> None:
    for name in ("mlut_18.dcm", "vlut_04.dcm"):
        picture = _shown(name)
        assert picture.max() > 200, name
        assert picture.std() > 20, name


def test_windows_of_enhanced_frames_come_from_their_functional_groups() -> None:
    frame, header, _ = _first_frame("eCT_Supplemental.dcm")
    assert "00281050" not in header.dicom
    shown = simplejpeg.decode_jpeg(render(frame, header.dicom, header.transfer_syntax, number=2))
    assert shown.std() > 20


@pytest.mark.parametrize(
    "options",
    [{"quality": 0}, {"quality": 101}, {"viewport": (0, 5)}, {"viewport": (5, 10**6)}, {"window": (float("nan"), 1.0)}],
)
def test_arguments_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidFrame):
        _shown("CT_small.dcm", **options)


def test_rendering_works_in_a_process_of_its_own() -> None:
    frame, header, _ = _first_frame("MR_small_jp2klossless.dcm")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        here = render(frame, header.dicom, header.transfer_syntax)
        assert pool.submit(render, frame, header.dicom, header.transfer_syntax).result() == here
        with pytest.raises(InvalidFrame) as caught:
            pool.submit(render, b"", header.dicom, header.transfer_syntax).result()
    assert caught.value.reason
    assert pickle.loads(pickle.dumps(header)) == header


# Explicit VR little endian ---------------------------------------------------------------------------------------

PIXEL_TAGS = {"7FE00010", "00280004", "00280006", "00280008", "7FE00001", "7FE00002"}


@pytest.mark.parametrize("path", _small(readable_files()), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rewritten_files_have_the_same_attributes_and_pixels(path: Path) -> None:
    header = read_header(path)
    if path.name in UNDECODABLE:
        with pytest.raises(DicomError):
            to_explicit_little_endian(path)
        return
    data = to_explicit_little_endian(path)
    found = read_header(data)
    assert found.transfer_syntax == "1.2.840.10008.1.2.1"
    assert {k: v for k, v in found.dicom.items() if k not in PIXEL_TAGS} == {
        k: v for k, v in header.dicom.items() if k not in PIXEL_TAGS
    }
    assert (found.sop_instance_uid, found.study_uid) == (header.sop_instance_uid, header.study_uid)
    if header.transfer_syntax == found.transfer_syntax:
        assert data == path.read_bytes()
    if header.frames is None or path.name in WITHOUT_REFERENCE:
        return
    assert frame_count(found.frames) == frame_count(header.frames)
    if "00280010" not in header.dicom or header.transfer_syntax == found.transfer_syntax:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.dcmread(path).pixel_array
        assert np.array_equal(pydicom.dcmread(BytesIO(data)).pixel_array, expected)


def test_there_are_enough_real_files() -> None:
    assert len(list(every_file())) > 200
    assert len(_with_frames()) > 120

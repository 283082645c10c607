"""Packs: what was acknowledged can be taken out again, byte for byte, by us and by any unzip."""

import gzip
import hashlib
import random
import shutil
import subprocess
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import orjson
import pytest

from libs.dicom import InvalidUid, read_header
from libs.packs import (
    InvalidPack,
    PackInfo,
    PackInput,
    archive,
    document_key,
    locate_index,
    pack_key,
    read_index,
    series_document,
    verify_pack,
    write_pack,
)
from libs.packs.index import PackIndex
from libs.packs.reader import TAIL
from tests.support.dicom_bytes import element, identity, part10
from tests.support.samples import sample

STUDY, SERIES = "1.2.3", "1.2.3.1"
STORED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def _instance(number: int, *, extra: bytes = b"", study: str = STUDY) -> bytes:
    return part10(
        [
            *identity(instance=f"1.2.3.4.{number}", study=study),
            element(0x00200013, "IS", f"{number:<4}".encode()),
            element(0x00091001, "UN", bytes(300)),
            element(0x00400275, "SQ", b"\xfe\xff\x00\xe0\x34\x01\x00\x00" + element(0x00091002, "OB", bytes(296))),
            element(0x7FE00010, "OB", bytes([number % 256]) * 1000 + extra),
        ]
    )


def _input(data: bytes, source: Path | None = None) -> PackInput:
    return PackInput(read_header(data), source or data, hashlib.sha256(data).hexdigest())


def _write(target: Path | BytesIO, files: list[bytes]) -> PackInfo:
    inputs = [_input(data) for data in files]
    return write_pack(target, inputs, study=STUDY, series=SERIES, stored=STORED, source="client:edge-1")


@pytest.fixture
def pack(tmp_path: Path) -> tuple[Path, PackInfo, list[bytes]]:
    files = [_instance(number) for number in (3, 1, 2)]
    path = tmp_path / "pack.zip"
    return path, _write(path, files), files


def test_every_instance_comes_out_as_it_went_in(pack: tuple[Path, PackInfo, list[bytes]]) -> None:
    path, info, files = pack
    data = path.read_bytes()
    assert info.size == len(data)
    assert verify_pack(path) == info.index
    for entry, original in zip(info.index.instances, files, strict=True):
        assert data[entry.offset : entry.offset + entry.length] == original
        assert hashlib.sha256(original).hexdigest() == entry.sha256
        offset, length = entry.bulk["00091001"]
        assert data[entry.offset + offset : entry.offset + offset + length] == bytes(300)


def test_the_tail_alone_leads_to_the_index(pack: tuple[Path, PackInfo, list[bytes]]) -> None:
    path, info, _ = pack
    data = path.read_bytes()
    for tail in (data[-TAIL:], data[-1000:], data):
        assert locate_index(tail, len(data)) == (info.index_offset, info.index_length)
    index = read_index(data[info.index_offset : info.index_offset + info.index_length])
    assert index == info.index
    assert (index.study, index.series, index.stored, index.source) == (STUDY, SERIES, STORED, "client:edge-1")


def test_any_unzip_opens_it(pack: tuple[Path, PackInfo, list[bytes]], tmp_path: Path) -> None:
    path, _, files = pack
    with zipfile.ZipFile(path) as archive_:
        assert archive_.testzip() is None
        names = archive_.namelist()
        assert names == ["1.2.3.4.3.dcm", "1.2.3.4.1.dcm", "1.2.3.4.2.dcm", "index.json.gz"]
        assert [archive_.read(name) for name in names[:3]] == files
        assert orjson.loads(gzip.decompress(archive_.read("index.json.gz")))["version"] == 1
    if shutil.which("unzip") is None:
        pytest.skip("unzip is not installed")
    done = subprocess.run(["unzip", "-t", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "No errors" in done.stdout


def test_the_same_input_gives_the_same_bytes_wherever_it_comes_from(tmp_path: Path) -> None:
    files = [_instance(number) for number in range(5)]
    _write(tmp_path / "a.zip", files)
    buffer = BytesIO(b"rubbish that was there before" * 10_000)
    _write(buffer, files)
    paths = []
    for number, data in enumerate(files):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(data)
    inputs = [_input(data, path) for data, path in zip(files, paths, strict=True)]
    write_pack(tmp_path / "b.zip", inputs, study=STUDY, series=SERIES, stored=STORED, source="client:edge-1")
    assert (tmp_path / "a.zip").read_bytes() == buffer.getvalue() == (tmp_path / "b.zip").read_bytes()


def test_a_retry_of_the_same_batch_has_the_same_key() -> None:
    contents = [("1.2.3.4.1", "ab" * 32), ("1.2.3.4.2", "cd" * 32)]
    key = pack_key(STUDY, SERIES, contents)
    assert key == pack_key(STUDY, SERIES, [(uid, sha.upper()) for uid, sha in reversed(contents)])
    assert key.startswith("packs/1.2.3/1.2.3.1/")
    assert key.endswith(".zip")
    assert key != pack_key(STUDY, SERIES, [("1.2.3.4.1", "cd" * 32), ("1.2.3.4.2", "ab" * 32)])
    for study, series in (("../1", SERIES), (STUDY, "1/2"), ("", SERIES)):
        with pytest.raises(InvalidUid):
            pack_key(study, series, contents)
        with pytest.raises(InvalidUid):
            document_key(study, series, 1)


def test_what_can_not_be_one_pack_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "pack.zip"
    with pytest.raises(InvalidPack, match="twice"):
        _write(target, [_instance(1), _instance(1, extra=b"ab")])
    with pytest.raises(InvalidPack, match="another study"):
        _write(target, [_instance(1), _instance(2, study="1.2.9")])
    with pytest.raises(InvalidPack, match="at least one"):
        _write(target, [])
    wrong = replace(_input(_instance(1)), sha256="0" * 64)
    with pytest.raises(InvalidPack, match="SHA-256"):
        write_pack(target, [wrong], study=STUDY, series=SERIES, stored=STORED, source="x")
    with pytest.raises(InvalidPack, match="time zone"):
        write_pack(
            target,
            [_input(_instance(1))],
            study=STUDY,
            series=SERIES,
            stored=datetime(2026, 1, 1),
            source="x",
        )


def test_bytes_that_changed_anywhere_are_found(pack: tuple[Path, PackInfo, list[bytes]]) -> None:
    path, _, _ = pack
    data = path.read_bytes()
    chance = random.Random(7)
    for position in {chance.randrange(len(data)) for _ in range(400)} | set(range(len(data) - 300, len(data))):
        damaged = bytearray(data)
        damaged[position] ^= 1 << chance.randrange(8)
        # The few bytes of the ending that say nothing (attributes, versions) may differ without harm.
        try:
            found = verify_pack(BytesIO(bytes(damaged)))
        except InvalidPack:
            continue
        assert position >= len(data) - TAIL * 4, position
        assert found == verify_pack(path)


def test_a_pack_that_is_cut_short_is_found(pack: tuple[Path, PackInfo, list[bytes]]) -> None:
    data = pack[0].read_bytes()
    for length in (0, 1, 21, 97, len(data) // 2, len(data) - 1):
        with pytest.raises(InvalidPack):
            verify_pack(BytesIO(data[:length]))
        with pytest.raises(InvalidPack):
            locate_index(data[:length][-TAIL:], length)
    with pytest.raises(InvalidPack):
        verify_pack(BytesIO(data + b"x"))
    with pytest.raises(InvalidPack):
        locate_index(data[-TAIL + 1 :], len(data))
    with pytest.raises(InvalidPack):
        locate_index(data[-TAIL:], len(data) + 1)


def test_an_ordinary_zip_is_not_taken_for_a_pack(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive_:
        archive_.writestr("index.json.gz", gzip.compress(b"{}"))
    with pytest.raises(InvalidPack):
        verify_pack(path)


def test_an_index_that_lies_is_refused(pack: tuple[Path, PackInfo, list[bytes]]) -> None:
    good = pack[1].index.to_json()
    changes: list[tuple[str, object]] = [
        ("version", 2),
        ("version", None),
        ("study", "../x"),
        ("series", 7),
        ("stored", "yesterday"),
        ("source", None),
        ("instances", []),
        ("instances", {}),
        ("instances", [1]),
        ("instances", good["instances"] * 2),
    ]
    bad = [{**good, name: value} for name, value in changes]
    for name, value in (
        ("sop_instance_uid", "a/b"),
        ("offset", -1),
        ("length", 1.5),
        ("offset", True),
        ("sha256", "xyz"),
        ("frames", {"kind": "other"}),
        ("frames", {"kind": "native", "offset": 1}),
        ("frames", {"kind": "encapsulated", "fragments": [[[1]]]}),
        ("bulk", {"7FE00010": [1, -2]}),
        ("bulk", []),
        ("dicom", None),
        ("warnings", "x"),
    ):
        bad.append({**good, "instances": [{**good["instances"][0], name: value}]})
    for content in bad:
        with pytest.raises(InvalidPack):
            read_index(gzip.compress(orjson.dumps(content)))
    for raw in (b"", b"rubbish", gzip.compress(b"not json"), gzip.compress(b"[]"), gzip.compress(b"{}" * 100)[:-9]):
        with pytest.raises(InvalidPack):
            read_index(raw)
    assert PackIndex.from_json(good) == pack[1].index


def test_an_index_that_is_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.packs.index.LARGEST_INDEX", 1_000_000)
    with pytest.raises(InvalidPack, match="too large"):
        read_index(gzip.compress(b" " * 50_000_000))


def test_sizes_beyond_four_gigabytes_are_written_as_zip64() -> None:
    """A slide is larger than what the plain fields of ZIP hold; the same form is used for all."""
    far = 5 * 1024**3
    entry = archive.Entry("1.2.dcm", far, far + archive.local_header_length("1.2.dcm"), far, 7)
    directory = archive.central_header(entry)
    size = 3 * far
    end = archive.ending(70_000, size - len(directory) - archive.ENDING_LENGTH, len(directory))
    found = archive.read_ending(end, size)
    assert (found.entries, found.directory_length) == (70_000, len(directory))
    assert archive.read_directory(directory, found.directory, 1) == [entry]


def test_a_series_document_is_ordered_and_its_addresses_are_complete(
    pack: tuple[Path, PackInfo, list[bytes]],
) -> None:
    _, info, _ = pack
    document = series_document(STUDY, SERIES, info.index.instances)
    assert document == series_document(STUDY, SERIES, reversed(info.index.instances))
    instances = orjson.loads(gzip.decompress(document))
    assert [instance["00200013"]["Value"] for instance in instances] == [[1], [2], [3]]
    base = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4.1/bulkdata"
    assert instances[0]["7FE00010"]["BulkDataURI"] == f"{base}/7FE00010"
    nested = instances[0]["00400275"]["Value"][0]["00091002"]
    assert nested["BulkDataURI"] == f"{base}/00400275/1/00091002"
    assert info.index.instances[0].dicom["7FE00010"]["BulkDataURI"] == "7FE00010", "the index stays as it is"
    assert document_key(STUDY, SERIES, 7) == "metadata/1.2.3/1.2.3.1/7.json.gz"


def test_a_real_series_survives(tmp_path: Path) -> None:
    item = sample("color3d_jpeg_baseline.dcm")
    header = item.header
    data = item.path.read_bytes()
    path = tmp_path / "pack.zip"
    info = write_pack(
        path,
        [PackInput(header, item.path, hashlib.sha256(data).hexdigest())],
        study=header.study_uid,
        series=header.series_uid,
        stored=STORED,
        source="user:anna",
    )
    (entry,) = verify_pack(path).instances
    assert entry.frames == header.frames
    assert dict(entry.bulk) == dict(header.bulk)
    assert entry.dicom == header.dicom
    assert path.read_bytes()[entry.offset :][: entry.length] == data
    assert info.size == path.stat().st_size

"""A pack that is sent from where its files lie must be the very pack that would have been written."""

import random
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from libs.dicom import read_header
from libs.packs import InvalidPack, MeasuredInput, PackInput, lay_out_pack, verify_pack, write_pack
from libs.packs.checksum import crc32_combined
from tests.services.ingest_gateway.instances import make_series, sha256

STORED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def measured(path: Path) -> MeasuredInput:
    data = path.read_bytes()
    return MeasuredInput(read_header(path), path, len(data), sha256(data), zlib.crc32(data))


@pytest.mark.parametrize("count", [1, 7])
def test_a_layout_is_the_pack_that_would_be_written(tmp_path: Path, count: int) -> None:
    paths = []
    for number, data in enumerate(make_series(count, pixels=5000)):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(data)
    known = read_header(paths[0])
    study, series = known.study_uid, known.series_uid
    layout = lay_out_pack(map(measured, paths), study=study, series=series, stored=STORED, source="client:edge-1")
    inputs = (PackInput(read_header(path), path, sha256(path.read_bytes())) for path in paths)
    target = tmp_path / "written.zip"
    written = write_pack(target, inputs, study=study, series=series, stored=STORED, source="client:edge-1")
    data = b"".join(piece if isinstance(piece, bytes) else piece.read_bytes() for piece in layout.pieces)
    assert data == target.read_bytes()
    assert layout.crc32 == zlib.crc32(data)
    assert layout.info == written
    (tmp_path / "sent.zip").write_bytes(data)
    assert len(verify_pack(tmp_path / "sent.zip").instances) == count


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(make_series(1)[0])
    item = measured(path)
    study, series = item.header.study_uid, item.header.series_uid
    for instances, stored in (([], STORED), ([item, item], STORED), ([item], datetime(2026, 1, 1))):
        with pytest.raises(InvalidPack):
            lay_out_pack(instances, study=study, series=series, stored=stored, source="x")
    with pytest.raises(InvalidPack):
        lay_out_pack([item], study=study, series="1.2.3", stored=STORED, source="x")


def test_checksums_of_stretches_combine() -> None:
    chance = random.Random(7)
    for length in (0, 1, 2, 7, 255, 4096, 70_001):
        first, second = chance.randbytes(chance.randrange(100)), chance.randbytes(length)
        combined = crc32_combined(zlib.crc32(first), zlib.crc32(second), length)
        assert combined == zlib.crc32(first + second)

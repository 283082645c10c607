"""``lightbox send`` sends what is on the disk, says what was not taken and why, and its exit code tells scripts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from cli.storage_scu import MOST_CONTEXTS, DicomFile, plan
from libs.dicom import read_header
from libs.dicom.part10 import read_file_meta
from tests.services.edge_gateway.edge_process import CHECKOUT, EdgeProcess, edge_with_cloud, free_port, wait_for
from tests.services.edge_gateway.instances import new_uid, write_instance, write_series
from tests.services.edge_gateway.stow_server import StowServer
from tests.support.samples import distinct_sample_files


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EdgeProcess, StowServer]]:
    with edge_with_cloud(tmp_path_factory.mktemp("send")) as pair:
        yield pair


@pytest.fixture
def edge(pair: tuple[EdgeProcess, StowServer]) -> EdgeProcess:
    return pair[0]


@pytest.fixture
def cloud(pair: tuple[EdgeProcess, StowServer]) -> StowServer:
    return pair[1]


def send(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "send", *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def send_json(edge: EdgeProcess, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = send(*arguments, "--to", f"127.0.0.1:{edge.dimse_port}", "--called", "EDGE", "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def data_set(file: bytes) -> bytes:
    return file[read_file_meta(file).dataset_offset :]


def test_every_sample_arrives_byte_for_byte(edge: EdgeProcess, cloud: StowServer) -> None:
    """Whoever migrates an archive with this must find the same data sets afterwards."""
    samples = distinct_sample_files()
    code, report = send_json(edge, "--parallel", 3, *[sample.path for sample in samples])
    assert code == 0
    assert report["sent"] == len(samples)
    expected = {data_set(sample.path.read_bytes()) for sample in samples}
    wait_for(lambda: {data_set(file) for file in cloud.files()} >= expected, what="all samples")


def test_a_folder_is_searched_and_what_is_no_image_is_left_out(
    edge: EdgeProcess, cloud: StowServer, tmp_path: Path
) -> None:
    """A patient's CD holds viewers, text files and folders within folders beside its images."""
    files = write_series(tmp_path / "CD" / "IMAGES" / "A", 3)
    (tmp_path / "CD" / "README.TXT").write_text("Insert the disc and wait.")
    (tmp_path / "CD" / "EMPTY").write_bytes(b"")
    code, report = send_json(edge, tmp_path / "CD")
    assert code == 0
    assert report["sent"] == 3
    assert len(report["not_dicom"]) == 2
    wait_for(lambda: {path.stem for path in files} <= cloud.uids())


def test_a_file_whose_meta_information_is_wrong_goes_under_its_own_identifiers(
    edge: EdgeProcess, cloud: StowServer, tmp_path: Path
) -> None:
    """Tools that anonymise forget the file meta information; the image is good all the same."""
    image = dcmread(write_instance(tmp_path))
    image.SOPInstanceUID = UID(new_uid())
    changed = tmp_path / "changed.dcm"
    image.save_as(changed, enforce_file_format=False)
    assert read_header(changed).sop_instance_uid != read_file_meta(changed.read_bytes()).sop_instance_uid
    code, report = send_json(edge, changed)
    assert code == 0, report
    wait_for(lambda: image.SOPInstanceUID in cloud.uids())


def test_a_refusal_is_said_in_words_and_fails_the_command(edge: EdgeProcess, tmp_path: Path) -> None:
    """A script that ignores a refused image would delete the only copy."""
    good = write_instance(tmp_path)
    bad = tmp_path / "truncated.dcm"
    bad.write_bytes(write_instance(tmp_path).read_bytes()[:-50])
    done = send(good, bad, "--to", f"127.0.0.1:{edge.dimse_port}", "--called", "EDGE")
    assert done.returncode == 1
    assert "can't understand it (C000)" in " ".join(done.stdout.split())
    assert "truncated.dcm" in done.stdout
    code, report = send_json(edge, good, bad)
    assert code == 1
    assert report["sent"] == 1
    assert [one["status"] for one in report["refused"]] == ["C000"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "127.0.0.1:{free}"], "can't be reached"),
        (["--to", "127.0.0.1:{port}", "--called", "WRONG"], "is not called WRONG"),
        (["--to", "nowhere"], "HOST:PORT"),
    ],
)
def test_what_keeps_it_from_sending_is_said(
    edge: EdgeProcess, tmp_path: Path, arguments: list[str], words: str
) -> None:
    """The technologist at the console has to know what to correct."""
    path = write_instance(tmp_path)
    filled = [one.format(free=free_port(), port=edge.dimse_port) for one in arguments]
    done = send(path, *filled)
    assert done.returncode == 1
    assert words in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_more_kinds_than_an_association_can_name_take_several() -> None:
    """The protocol has room for 128 contexts; what lies beyond would be refused by every receiver."""
    files = [DicomFile(Path(f"{n}"), f"1.2.{n}", f"1.3.{n}", "1.2.840.10008.1.2", 1, 1) for n in range(300)]
    loads = plan(files, 1)
    assert [len(load) for load in loads] == [MOST_CONTEXTS, MOST_CONTEXTS, 300 - 2 * MOST_CONTEXTS]
    assert [file for load in loads for file in load] == files
    assert len(plan(files[:100], 4)) == 4

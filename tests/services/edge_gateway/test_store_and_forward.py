"""What a scanner sends arrives in the cloud as it was, whatever happens on the way."""

import hashlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from libs.dicom.part10 import read_file_meta
from tests.services.edge_gateway.edge_process import EdgeProcess, wait_for
from tests.services.edge_gateway.instances import new_uid, write_instance, write_series
from tests.services.edge_gateway.sender import associate, dcmtk, storescu
from tests.services.edge_gateway.stow_server import StowServer


def data_set(file: bytes) -> bytes:
    return file[read_file_meta(file).dataset_offset :]


def test_a_series_arrives_as_it_was_in_few_requests(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """Losing this is losing images, or flooding the cloud with a request for each."""
    files = write_series(tmp_path / "in", 30)
    assert storescu(edge, files) == 0
    wait_for(lambda: len(cloud.uids()) == 30 and edge.is_empty())
    assert len(cloud.requests) <= 3
    by_uid = {uid: file for (uid, _), file in cloud.stored.items()}
    for path in files:
        assert data_set(by_uid[path.stem]) == data_set(path.read_bytes())
    assert edge.kept() == []


def test_an_image_reaches_the_cloud_within_two_seconds(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """A technologist who looks for the image he just sent would otherwise send it again."""
    path = write_instance(tmp_path)
    began = time.monotonic()
    assert storescu(edge, [path]) == 0
    wait_for(lambda: path.stem in cloud.uids())
    assert time.monotonic() - began < 2


def test_private_and_unknown_sop_classes_are_taken(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """Vendors' own objects carry what their workstations need to show the study again."""
    for sop_class in ("1.2.840.113619.4.26", "1.2.276.0.99.1", "1.2.840.10008.5.1.4.1.1.99999"):
        path = write_instance(tmp_path, sop_class=sop_class)
        association = associate(edge, sop_class, "1.2.840.10008.1.2.1")
        assert association.is_established
        assert association.send_c_store(dcmread(path)).Status == 0
        association.release()
    wait_for(lambda: len(cloud.uids()) == 3)


def test_echo_answers(edge: EdgeProcess) -> None:
    """It is what the installer of a scanner tries first."""
    command = [dcmtk("echoscu"), "-aec", "EDGE", "127.0.0.1", str(edge.dimse_port)]
    assert subprocess.run(command, timeout=20, check=False).returncode == 0


def test_a_killed_edge_forwards_everything_it_acknowledged_once(
    make_edge: Callable[..., EdgeProcess], cloud: StowServer, tmp_path: Path
) -> None:
    """A scanner deletes what was acknowledged: the edge's copy is then the only one."""
    cloud.stop()
    edge = make_edge()
    files = write_series(tmp_path / "in", 60, side=128)
    acknowledged: list[Path] = []
    for _ in range(3):
        rest = [path for path in files if path not in acknowledged]
        command = [dcmtk("storescu"), "-v", "-aec", "EDGE", "127.0.0.1", str(edge.dimse_port), *map(str, rest)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sender:
            sent: list[Path] = []
            for line in sender.stdout or ():
                if "Sending file: " in line:
                    sent.append(Path(line.split("Sending file: ")[1].strip()))
                if "Received Store Response (Success)" in line:
                    acknowledged.append(sent[-1])
                    if len(acknowledged) % 15 == 0:
                        edge.kill()
        if edge.process and edge.process.poll() is not None:
            edge.start()
    assert 15 <= len(acknowledged) < 60
    assert edge.status()["waiting"]["instances"] >= len(acknowledged)
    cloud.start()
    wait_for(edge.is_empty)
    assert {path.stem for path in acknowledged} <= cloud.uids()
    assert set(cloud.times.values()) == {1}
    assert edge.kept() == []


def test_a_kill_while_the_cloud_answers_loses_nothing(
    make_edge: Callable[..., EdgeProcess], cloud: StowServer, tmp_path: Path
) -> None:
    """The cloud stored, the edge died before it heard so: it sends again, and no bytes differ."""
    edge = make_edge()
    files = write_series(tmp_path / "in", 10)

    def kill_then_store(server: StowServer, parts: list[tuple[str, bytes]]) -> tuple[int, dict[str, str], bytes]:
        server.behave = None
        reply = server.store(parts)
        assert edge.process
        edge.process.send_signal(signal.SIGKILL)
        return reply

    cloud.behave = kill_then_store
    assert storescu(edge, files) == 0
    assert edge.process
    edge.process.wait(10)
    edge.start()
    wait_for(edge.is_empty)
    assert cloud.uids() == {path.stem for path in files}
    assert len(cloud.stored) == 10


def test_the_spool_outlives_an_outage_of_the_cloud(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """A clinic goes on scanning while its line is down, and everything goes when it is back, soon."""
    cloud.stop()
    files = [*write_series(tmp_path / "a", 5), *write_series(tmp_path / "b", 5)]
    assert storescu(edge, files) == 0
    wait_for(lambda: edge.status()["failures"] >= 3)
    status = edge.status()
    assert status["waiting"]["instances"] == 10
    assert "can't be reached" in status["line"]
    assert status["oldest_waiting_seconds"] > 0
    cloud.start()
    wait_for(edge.is_empty, seconds=8)
    assert cloud.uids() == {path.stem for path in files}
    assert edge.status()["line"] == "ok"


def test_the_same_bytes_wait_once_and_other_bytes_are_kept_beside_them(
    edge: EdgeProcess, cloud: StowServer, tmp_path: Path
) -> None:
    """A sender that repeats itself must not fill the disk; one that reuses a UID must not lose an image."""
    cloud.stop()
    uid, study, series = new_uid(), new_uid(), new_uid()
    path = write_instance(tmp_path, uid=uid, study=study, series=series)
    for _ in range(3):
        assert storescu(edge, [path]) == 0
    assert edge.status()["waiting"]["instances"] == 1
    assert len(edge.kept()) == 1
    other = write_instance(tmp_path, uid=uid, study=study, series=series, note="another picture")
    assert storescu(edge, [other]) == 0
    assert edge.status()["waiting"]["instances"] == 2
    cloud.start()
    wait_for(edge.is_empty)
    assert len(cloud.stored) == 2
    assert cloud.uids() == {uid}


def test_a_damaged_file_is_not_passed_off_as_the_image(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """Bit rot on the edge's disk must be reported, not stored as the patient's image."""
    cloud.stop()
    good = write_series(tmp_path / "in", 3)
    assert storescu(edge, good) == 0
    victim = edge.kept()[0]
    content = bytearray(victim.path.read_bytes()[victim.offset :][: victim.size])
    content[-1] ^= 0xFF
    with victim.path.open("r+b") as file:
        file.seek(victim.offset)
        file.write(content)
    cloud.start()
    wait_for(edge.is_empty)
    status = edge.status()
    assert status["refused"]["instances"] == 1
    assert "not what was written" in status["refused_instances"][0]["reason"]
    assert len(cloud.stored) == 2
    assert hashlib.sha256(bytes(content)).hexdigest() not in {digest for _, digest in cloud.stored}
    # The scanner sends it again: now it goes.
    assert storescu(edge, good) == 0
    wait_for(lambda: len(cloud.uids()) == 3 and edge.status()["refused"]["instances"] == 0)


def acknowledged_by(edge: EdgeProcess, files: list[Path]) -> set[str]:
    """Sends all in one association, and gives the SOP Instance UIDs that the edge acknowledged before it died."""
    command = [dcmtk("storescu"), "-v", "-aec", "EDGE", "127.0.0.1", str(edge.dimse_port), *map(str, files)]
    output = subprocess.run(command, capture_output=True, timeout=90, check=False, text=True).stderr
    sent, acknowledged = "", set()
    for line in output.splitlines():
        if "Sending file: " in line:
            sent = Path(line.split("Sending file: ")[1].strip()).stem
        if "Received Store Response (Success)" in line:
            acknowledged.add(sent)
    return acknowledged


@pytest.mark.parametrize("crash", ["edge.written:6", "edge.synced:6", "edge.entered:2", "edge.renewed"])
def test_a_loss_of_power_at_any_step_loses_nothing_acknowledged(cloud: StowServer, tmp_path: Path, crash: str) -> None:
    """The scanner deletes what was acknowledged; and half an image must not arrive as a whole one."""
    if not crash.startswith("edge.renewed"):
        cloud.stop()
    edge = EdgeProcess(tmp_path / "spool", cloud.port, SEGMENT_BYTES=1 << 20, SPARE_BYTES=4 << 20)
    armed = tmp_path / "armed"
    armed.write_text(crash)
    edge.environment["LIGHTBOX_CRASH_AT"] = f"@{armed}"
    files = [path for folder in "abcd" for path in write_series(tmp_path / folder, 10, side=256)]
    try:
        edge.start()
        acknowledged = acknowledged_by(edge, files)
        assert edge.process
        edge.process.wait(30)
        assert not armed.exists()
        edge.start()
        cloud.start()
        wait_for(edge.is_empty, seconds=60)
        assert acknowledged <= cloud.uids()
        by_uid = {uid: file for (uid, _), file in cloud.stored.items()}
        for path in files:
            if path.stem in by_uid:
                assert data_set(by_uid[path.stem]) == data_set(path.read_bytes())
        rest = [path for path in files if path.stem not in acknowledged]
        assert not rest or storescu(edge, rest) == 0
        wait_for(lambda: cloud.uids() == {path.stem for path in files} and edge.is_empty(), seconds=60)
        assert len(cloud.stored) == len(files)
    finally:
        edge.stop()

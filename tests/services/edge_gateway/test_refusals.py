"""What the edge does not take, it refuses with the right status, and keeps nothing of it."""

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from libs.dicom.part10 import read_file_meta
from tests.services.edge_gateway.edge_process import EdgeProcess, wait_for
from tests.services.edge_gateway.instances import CT_IMAGE_STORAGE, new_uid, write_instance, write_series
from tests.services.edge_gateway.sender import associate, store_raw, storescu
from tests.services.edge_gateway.stow_server import StowServer

EXPLICIT = "1.2.840.10008.1.2.1"


def test_data_that_is_not_dicom_is_refused_and_the_next_store_works(edge: EdgeProcess, tmp_path: Path) -> None:
    """A scanner must learn at once that its image was not taken, and one bad object must not end its work."""
    association = associate(edge, CT_IMAGE_STORAGE, EXPLICIT)
    for rubbish in (b"this is no data set at all", b"\0" * 3000, b"%PDF-1.7 " * 50):
        status, comment = store_raw(association, CT_IMAGE_STORAGE, new_uid(), rubbish)
        assert status == 0xC000
        assert comment
    path = write_instance(tmp_path)
    assert association.send_c_store(dcmread(path)).Status == 0
    association.release()
    assert len(edge.kept()) <= 1


def test_a_command_that_does_not_match_its_data_set_is_refused(edge: EdgeProcess, tmp_path: Path) -> None:
    """The wrong image under a right identifier is worse than none."""
    path = write_instance(tmp_path)
    file = path.read_bytes()
    body = file[read_file_meta(file).dataset_offset :]
    association = associate(edge, CT_IMAGE_STORAGE, EXPLICIT)
    assert store_raw(association, CT_IMAGE_STORAGE, new_uid(), body)[0] == 0xA900
    association.release()
    mr = "1.2.840.10008.5.1.4.1.1.4"
    association = associate(edge, mr, EXPLICIT)
    assert store_raw(association, mr, path.stem, body)[0] == 0xA900
    association.release()
    assert edge.kept() == []


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "1.2.3;reboot", ""])
def test_a_uid_that_is_none_never_reaches_the_disk(edge: EdgeProcess, uid: str, tmp_path: Path) -> None:
    """A path in an identifier must not write outside the spool."""
    path = write_instance(tmp_path)
    file = path.read_bytes()
    body = file[read_file_meta(file).dataset_offset :].replace(path.stem.encode(), uid.encode().ljust(len(path.stem)))
    association = associate(edge, CT_IMAGE_STORAGE, EXPLICIT)
    if uid:
        assert store_raw(association, CT_IMAGE_STORAGE, path.stem, body)[0] in (0xC000, 0xA900)
    association.release()
    assert edge.kept() == []


def test_nearly_full_means_out_of_resources_and_the_rest_goes_on(
    make_edge: Callable[..., EdgeProcess], cloud: StowServer, tmp_path: Path
) -> None:
    """The scanner keeps what the edge has no room for, and sends it later."""
    edge = make_edge(health="/health/live", MINIMUM_FREE_BYTES=1 << 60)
    association = associate(edge, CT_IMAGE_STORAGE, EXPLICIT)
    answer = association.send_c_store(dcmread(write_instance(tmp_path)))
    association.release()
    assert answer.Status == 0xA700
    assert "full" in answer.ErrorComment
    assert edge.kept() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system of its own can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_loses_nothing(
    small_disk: Path, make_edge: Callable[..., EdgeProcess], cloud: StowServer, tmp_path: Path
) -> None:
    """What was acknowledged before the disk was full goes to the cloud, and then there is room again."""
    cloud.stop()
    edge = make_edge(spool=small_disk / "spool")
    files = write_series(tmp_path / "in", 16, side=512)
    association = associate(edge, CT_IMAGE_STORAGE, EXPLICIT)
    statuses = [association.send_c_store(dcmread(path)).Status for path in files]
    association.release()
    assert set(statuses) == {0x0000, 0xA700}
    taken = {path.stem for path, status in zip(files, statuses, strict=True) if status == 0}
    assert edge.status()["waiting"]["instances"] == len(taken)
    assert len(edge.kept()) == len(taken)
    cloud.start()
    wait_for(edge.is_empty, seconds=30)
    assert cloud.uids() == taken
    assert storescu(edge, [path for path in files if path.stem not in taken][:4]) == 0
    wait_for(lambda: len(cloud.uids()) == len(taken) + 4)


def test_associations_for_somebody_else_are_rejected(make_edge: Callable[..., EdgeProcess], tmp_path: Path) -> None:
    """A scanner with a wrong address should hear so, not send another clinic's images here."""
    edge = make_edge(CALLING_AE_TITLES="CT1, MR1")
    assert not associate(edge, CT_IMAGE_STORAGE, EXPLICIT, called="OTHER", calling="CT1").is_established
    assert not associate(edge, CT_IMAGE_STORAGE, EXPLICIT, calling="STRANGER").is_established
    association = associate(edge, CT_IMAGE_STORAGE, EXPLICIT, calling="MR1")
    assert association.is_established
    association.release()
    edge.stop()
    lenient = make_edge(spool=tmp_path / "lenient", ACCEPT_ANY_CALLED_AE_TITLE="true")
    association = associate(lenient, CT_IMAGE_STORAGE, EXPLICIT, called="OTHER")
    assert association.is_established
    association.release()


def hostile_peers() -> list[bytes]:
    item = b"\x10\x00\x00\x15" + b"1.2.840.10008.3.1.1.1"
    head = struct.pack(">HH", 1, 0) + b"EDGE".ljust(16) + b"EVIL".ljust(16) + bytes(32)
    amplified = head + item + b"\x20\x00\xff\xff" * 16000
    return [
        b"\x01\x00" + struct.pack(">I", 0xFFFFFFF0) + b"x" * 100,
        b"\x04\x00" + struct.pack(">I", 0xFFFFFFF0) + b"x" * 100,
        b"\x01\x00" + struct.pack(">I", len(amplified)) + amplified,
        b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]


def test_peers_that_lie_are_cut_off_and_the_edge_lives(edge: EdgeProcess, tmp_path: Path) -> None:
    """Anything on the clinic's network may connect; none of it may stop the scanners."""
    peers = []
    for message in hostile_peers():
        peer = socket.create_connection(("127.0.0.1", edge.dimse_port))
        peer.sendall(message)
        peers.append(peer)
    for peer in peers:
        peer.settimeout(15)
        while True:
            try:
                if not peer.recv(4096):
                    break
            except ConnectionResetError:
                break
        peer.close()
    assert storescu(edge, [write_instance(tmp_path)]) == 0
    wait_for(lambda: edge.status()["associations"] == 0)


def test_slow_peers_do_not_keep_scanners_out(make_edge: Callable[..., EdgeProcess], tmp_path: Path) -> None:
    """A dozen connections that say almost nothing must not fill the edge."""
    edge = make_edge(MAXIMUM_ASSOCIATIONS=4)
    peers = []
    for _ in range(40):
        peer = socket.create_connection(("127.0.0.1", edge.dimse_port))
        try:
            peer.sendall(b"\x01\x00\x00")
        except OSError:
            continue
        peers.append(peer)
    time.sleep(0.5)
    path = write_instance(tmp_path)
    wait_for(lambda: storescu(edge, [path]) == 0, seconds=25)
    for peer in peers:
        peer.close()

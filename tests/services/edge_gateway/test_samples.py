"""Real files of all kinds, sent by DCMTK, arrive with the very bytes that were sent."""

import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.dicom.part10 import read_file_meta
from tests.services.edge_gateway.edge_process import EdgeProcess, free_port, wait_for
from tests.services.edge_gateway.sender import dcmtk
from tests.services.edge_gateway.stow_server import StowServer
from tests.support.samples import Sample, distinct_sample_files, sample_files

# What makes storescu propose a transfer syntax; without, it proposes the uncompressed ones.
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
COMPRESSED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")


# DCMTK finds no SOP Instance UID in it, because the VR of all its attributes is UN.
BEYOND_DCMTK = {"explicit_VR-UN.dcm"}


def by_transfer_syntax() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in sample_files():
        if sample.name in BEYOND_DCMTK:
            continue
        found[sample.header.transfer_syntax].append(sample)
    return found


class Reference:
    """DCMTK's own receiver, which writes every data set bit by bit as it comes off the wire."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    def received(self) -> set[tuple[str, str, bytes]]:
        return {facts(path.read_bytes()) for path in self.folder.iterdir()}


def facts(file: bytes) -> tuple[str, str, bytes]:
    """Instance, transfer syntax and data set of a Part 10 file."""
    meta = read_file_meta(file)
    return meta.sop_instance_uid, meta.transfer_syntax, file[meta.dataset_offset :]


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[Reference]:
    receiver = Reference(tmp_path / "reference")
    receiver.folder.mkdir()
    options = ["--bit-preserving", "+xa", "--unique-filenames", "--output-directory", str(receiver.folder)]
    with subprocess.Popen([dcmtk("storescp"), *options, str(receiver.port)], stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: is_listening(receiver.port))
        yield receiver
        process.terminate()


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def send_to_both(edge: EdgeProcess, reference: Reference, program: str, *arguments: str) -> None:
    for port in (edge.dimse_port, reference.port):
        command = [dcmtk(program), "-aec", "EDGE", "127.0.0.1", str(port), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("transfer_syntax", sorted(by_transfer_syntax()))
def test_storescu_sends_each_sample_in_its_own_transfer_syntax(
    edge: EdgeProcess, cloud: StowServer, reference: Reference, transfer_syntax: str
) -> None:
    """An image that is re-encoded on the way is not the image that the scanner made."""
    paths = [str(sample.path) for sample in by_transfer_syntax()[transfer_syntax]]
    send_to_both(edge, reference, "storescu", "-R", PROPOSE[transfer_syntax], *paths)
    sent = reference.received()
    assert {syntax for _, syntax, _ in sent} == {transfer_syntax}
    wait_for(lambda: len(cloud.stored) == len(sent))
    assert {facts(file) for file in cloud.stored.values()} == sent


def test_dcmsend_sends_all_samples_over_one_association(
    edge: EdgeProcess, cloud: StowServer, reference: Reference
) -> None:
    """A workstation that sends a mixed study proposes many contexts at once."""
    samples = [sample for sample in distinct_sample_files() if sample.name not in BEYOND_DCMTK]
    # Each end may choose among the uncompressed transfer syntaxes, so that only the compressed ones can be compared.
    compressed = {s.header.sop_instance_uid for s in samples if s.header.transfer_syntax.startswith(COMPRESSED)}
    send_to_both(edge, reference, "dcmsend", *[str(sample.path) for sample in samples])
    wait_for(lambda: cloud.uids() == {sample.header.sop_instance_uid for sample in samples}, seconds=30)
    arrived = {facts(file) for (uid, _), file in cloud.stored.items() if uid in compressed}
    assert len(arrived) == len(compressed)
    assert arrived == {one for one in reference.received() if one[0] in compressed}

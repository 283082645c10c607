"""C-STORE by DCMTK's storescu: Lightbox's edge beside Orthanc and storescp, on the same disk.

``python -m benchmarks.store [INSTANCES] [--forwarding]``. The edge runs with its default settings and answers when the
instance is on the disk; Orthanc and storescp do not wait for the disk. Its line to the cloud is cut, since the others
forward nothing either; with ``--forwarding`` the edge of the running demo is measured too, which shares the processors
with the whole cloud. Both modes of a sender are shown: with Nagle's algorithm (the default of DCMTK and of most
scanners) and without. After each run what was stored is read from the peer's disk and compared by SHA-256.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from benchmarks.edge import lone_edge, settled, spooled
from benchmarks.measure import interleave, report
from benchmarks.peers import Peer, orthanc, storescp
from benchmarks.samples import write_ct_series
from benchmarks.stack import running_stack


@dataclass(frozen=True)
class Subject:
    """A receiver, and how its disk is read.

    Attributes:
        peer: where it listens.
        kept: the Part 10 files that it keeps and that came after a moment, seconds since 1970.
    """

    peer: Peer
    kept: Callable[[float], Iterator[bytes]] | None


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        instances: how many.
        side: rows and columns of each.
        associations: over how many associations at once.
        nagle: the sender leaves Nagle's algorithm on.
    """

    instances: int
    side: int = 512
    associations: int = 1
    nagle: bool = False

    def __str__(self) -> str:
        size = "0.5 MB CT" if self.side == 512 else f"{self.side * self.side * 2 / 1000:.0f} kB CT"
        mode = "with Nagle's algorithm" if self.nagle else "with TCP_NODELAY"
        return f"C-STORE, {size}, {self.associations} association(s), sender {mode}"


def send(subject: Subject, scratch: Path, load: Load) -> float:
    """Stores a new series; returns instances per second.

    Raises:
        RuntimeError: what the receiver keeps is not what was sent.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch))
    files = write_ct_series(folder, load.instances, seed=int.from_bytes(os.urandom(4), "big"), side=load.side)
    os.sync()
    peer = subject.peer
    environment = {**os.environ, "TCP_NODELAY": "0" if load.nagle else "1"}
    base = ["/usr/bin/storescu", "-pdu", "131072", "-aec", peer.called, "127.0.0.1", str(peer.dicom_port)]
    commands = [[*base, *map(str, files[part :: load.associations])] for part in range(load.associations)]
    began, started = time.time(), time.perf_counter()
    senders = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - started
    if any(codes):
        raise RuntimeError(f"{peer.name} did not take everything")
    if subject.kept is not None and not {*map(content, files)} <= {*map(hashed, subject.kept(began - 1))}:
        raise RuntimeError(f"{peer.name} does not keep what was sent")
    for file in files:
        file.unlink()
    return load.instances / seconds


def content(path: Path) -> str:
    """What must be kept of an instance."""
    return hashed(path.read_bytes())


def hashed(file: bytes) -> str:
    """SHA-256 of identifier and pixels of a Part 10 file."""
    image = dcmread(BytesIO(file))
    return hashlib.sha256(str(image.SOPInstanceUID).encode() + image.PixelData).hexdigest()


def files_since(folder: Path, since: float) -> Iterator[bytes]:
    """The Part 10 files below a folder that are not older than a moment."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mtime >= since:
            file = path.read_bytes()
            if file[128:132] == b"DICM":
                yield file


def kept_by_edge(edge: Peer, since: float) -> Iterator[bytes]:
    """What the edge keeps."""
    settled(edge)
    yield from spooled(edge.folder, since)


def measure(load: Load, subjects: list[Subject], scratch: Path) -> None:
    """Measures one load with all receivers in turn, and prints the table."""
    runs = {subject.peer.name: partial(send, subject, scratch, load) for subject in subjects}
    report(str(load), "instances/s", interleave(runs), ours=subjects[0].peer.name)


def main() -> None:
    """Measures all loads."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    count = int(arguments[0]) if arguments else 200
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        with (
            lone_edge(scratch / "edge") as (edge, _),
            orthanc(scratch / "orthanc") as first,
            storescp(scratch / "storescp") as second,
        ):
            ours = Subject(edge, partial(kept_by_edge, edge))
            peers = [Subject(peer, partial(files_since, peer.folder)) for peer in (first, second)]
            measure(Load(count), [ours, *peers], scratch)
            measure(Load(count, nagle=True), [ours, *peers], scratch)
            measure(Load(count, associations=4), [ours, *peers], scratch)
            measure(Load(count, associations=4, nagle=True), [ours, *peers], scratch)
            measure(Load(3 * count, side=122), [ours, *peers], scratch)
            if "--forwarding" in sys.argv:
                with running_stack() as stack:
                    forwarding = Peer("Lightbox edge, forwarding", stack.edge_port, stack.edge_title, "", scratch)
                    measure(Load(count), [Subject(forwarding, None), *peers], scratch)


if __name__ == "__main__":
    main()

"""C-STORE of 0.5 MB CT slices by DCMTK's storescu: Lightbox's edge beside Orthanc and storescp.

``python -m benchmarks.store [SLICES]``. The edge answers when the file, its folder and its journal row are on the disk;
Orthanc and storescp do not wait for the disk. Both modes of a sender are shown: with Nagle's algorithm (the default of
DCMTK and of most scanners) and without.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measure import interleave, report
from benchmarks.peers import Peer, orthanc, storescp
from benchmarks.samples import write_ct_series
from benchmarks.stack import Stack, running_stack


def send(peer: Peer, scratch: Path, slices: int, *, nagle: bool) -> float:
    """Stores a new series over one association; returns instances per second."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    write_ct_series(folder, slices, seed=int.from_bytes(os.urandom(4), "big"))
    environment = {**os.environ, "TCP_NODELAY": "0" if nagle else "1"}
    command = ["storescu", "-pdu", "131072", "-aec", peer.called, "+sd", "127.0.0.1", str(peer.dicom_port), str(folder)]
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return slices / (time.perf_counter() - started)


def edge(stack: Stack) -> Peer:
    """Lightbox's edge as a peer."""
    return Peer("Lightbox edge", stack.edge_port, stack.edge_title, stack.address, stack.home)


def main() -> None:
    """Measures both modes and prints a table for each."""
    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name, running_stack() as stack:
        scratch = Path(name)
        with orthanc(scratch / "orthanc") as first, storescp(scratch / "storescp") as second:
            peers = (edge(stack), first, second)
            for nagle in (False, True):
                runs = {peer.name: partial(send, peer, scratch, slices, nagle=nagle) for peer in peers}
                mode = "with Nagle's algorithm" if nagle else "TCP_NODELAY"
                figures = interleave(runs)
                report(f"C-STORE, 1 association, sender {mode}", "instances/s", figures, ours=peers[0].name)


if __name__ == "__main__":
    main()

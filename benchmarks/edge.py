"""An edge gateway of its own with its default settings, its line to the cloud cut: only receiving is measured."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from benchmarks.peers import Peer, free_port

CHECKOUT = Path(__file__).resolve().parents[1]


@contextmanager
def lone_edge(folder: Path) -> Iterator[tuple[Peer, subprocess.Popen[bytes]]]:
    """Starts an edge with its spool in the folder.

    Returns:
        Where it listens, and its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    http, dicom = free_port(), free_port()
    settings = {
        "PORT": http,
        "DIMSE_PORT": dicom,
        "SPOOL_DIR": folder / "spool",
        "CLOUD_URL": f"http://127.0.0.1:{free_port()}",
        "CLIENT_ID": "benchmark.edge",
        "CLIENT_SECRET": "nobody asks for it",
    }
    environment = os.environ | {f"LIGHTBOX_EDGE_GATEWAY_{name}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "services", "edge_gateway"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{http}", process)
            yield Peer("Lightbox edge", dicom, "LIGHTBOX", f"http://127.0.0.1:{http}", folder / "spool"), process
        finally:
            process.terminate()
            process.wait(30)


def spooled(spool: Path, since: float) -> Iterator[bytes]:
    """The Part 10 files that the journal counts on and that came after a moment.

    Arguments:
        spool: the folder.
        since: seconds since 1970.
    """
    with closing(sqlite3.connect(spool / "journal.sqlite3")) as journal:
        statement = "SELECT file, offset, size FROM instances WHERE received >= ?"
        for file, offset, size in journal.execute(statement, (since,)).fetchall():
            folder = "segments" if file.endswith(".segment") else "instances"
            with (spool / folder / file).open("rb") as content:
                content.seek(offset)
                yield content.read(size)


def settled(edge: Peer) -> None:
    """Waits until the journal has everything that was acknowledged: the status says so only then."""
    httpx.get(f"{edge.http}/status", timeout=30).raise_for_status()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError("the edge ended at once; its log says why")
        try:
            if httpx.get(f"{address}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the edge is not ready")

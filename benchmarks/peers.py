"""The servers that Lightbox is measured beside: Debian's Orthanc with its DICOMweb plug-in, and DCMTK's storescp."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


class PeerMissing(RuntimeError):
    """A peer is not installed."""


@dataclass(frozen=True)
class Peer:
    """A running server.

    Attributes:
        name: what tables call it, with its version.
        dicom_port: where it takes C-STORE.
        called: its AE title.
        http: the root of its DICOMweb, or empty.
        folder: where it keeps what it gets.
        pid: its process; 0 when it is Lightbox, which has several.
    """

    name: str
    dicom_port: int
    called: str
    http: str
    folder: Path
    pid: int = 0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """Orthanc as Debian configures it (SQLite index), with the DICOMweb plug-in."""
    folder.mkdir(parents=True, exist_ok=True)
    dicom, http = free_port(), free_port()
    settings = {
        "Name": "peer",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": ["/usr/share/orthanc/plugins"],
        "DicomAet": "ORTHANC",
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    version = _version("Orthanc", r"(\d+\.\d+\.\d+)")
    with _running(["Orthanc", str(folder / "orthanc.json")], folder / "log", http) as pid:
        yield Peer(f"Orthanc {version}", dicom, "ORTHANC", f"http://127.0.0.1:{http}/dicom-web", folder, pid)


@contextmanager
def storescp(folder: Path) -> Iterator[Peer]:
    """DCMTK's storescp, which writes each file and does not wait for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    version = _version("storescp", r"v(\d+\.\d+\.\d+)")
    command = ["storescp", "-aet", "STORESCP", "+xa", "-pdu", "131072", "--fork", "-od", str(folder), str(port)]
    with _running(command, folder.with_suffix(".log"), port) as pid:
        yield Peer(f"DCMTK storescp {version}", port, "STORESCP", "", folder, pid)


def _version(program: str, pattern: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise PeerMissing(f"{program} is not installed; on Debian: apt-get install orthanc orthanc-dicomweb dcmtk")
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(pattern, text)
    return found.group(1) if found else "?"


@contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[int]:
    # DCMTK leaves Nagle's algorithm on, which costs both peers 40 ms an instance; they are shown at their best.
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            _wait_for(port, process)
            yield process.pid
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended at once; its log says why")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} does not answer on port {port}")

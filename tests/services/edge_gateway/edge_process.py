"""The edge gateway as a process of its own, to be started, killed and started again."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.services.edge_gateway.stow_server import StowServer

CHECKOUT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Kept(NamedTuple):
    """An instance in the spool: a Part 10 file that lies in this file."""

    path: Path
    offset: int
    size: int


class EdgeProcess:
    """One edge gateway and its spool."""

    def __init__(self, spool: Path, cloud_port: int, **settings: object) -> None:
        self.spool = spool
        self.port = free_port()
        self.dimse_port = free_port()
        self.log = spool.parent / f"{spool.name}.log"
        values: dict[str, object] = {
            "PORT": self.port,
            "DIMSE_PORT": self.dimse_port,
            "SPOOL_DIR": spool,
            "AE_TITLE": "EDGE",
            "CLOUD_URL": f"http://127.0.0.1:{cloud_port}",
            "CLIENT_ID": "north.edge",
            "CLIENT_SECRET": "a secret of the test",
            "MINIMUM_FREE_BYTES": 0,
            "SPARE_BYTES": 64 << 20,
            "NEGOTIATION_TIMEOUT": 2,
            **settings,
        }
        self.environment = os.environ | {f"LIGHTBOX_EDGE_GATEWAY_{k}": str(v) for k, v in values.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, health: str = "/health/ready") -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services", "edge_gateway"],
                cwd=CHECKOUT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: self._answers(health), what=f"the edge to be ready; see {self.log.read_text()[-2000:]}")

    def _answers(self, health: str) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.get(health) is not None
        except OSError:
            return False

    def get(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.get("/status")
        return status

    def is_empty(self) -> bool:
        return bool(self.status()["waiting"]["instances"] == 0)

    def kept(self) -> list[Kept]:
        """Where the instances lie that the journal counts on."""
        self.status()
        with closing(sqlite3.connect(self.spool / "journal.sqlite3")) as journal:
            rows = journal.execute("SELECT file, offset, size FROM instances ORDER BY sequence").fetchall()
        return [
            Kept(self.spool / ("segments" if file.endswith(".segment") else "instances") / file, offset, size)
            for file, offset, size in rows
        ]

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


@contextmanager
def edge_with_cloud(folder: Path) -> Iterator[tuple[EdgeProcess, StowServer]]:
    """A running edge, with its spool in the folder, and the cloud that it sends to."""
    cloud = StowServer()
    cloud.start()
    try:
        edge = EdgeProcess(folder / "spool", cloud.port)
        try:
            edge.start()
            yield edge, cloud
        finally:
            edge.stop()
    finally:
        cloud.stop()


def wait_for(condition: Callable[[], bool], *, seconds: float = 20, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or condition}"
        time.sleep(0.05)

"""The ingest gateway as a process of its own, whose memory can be metered."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from services.ingest_gateway.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[3]


class GatewayProcess:
    """One gateway.

    Attributes:
        url: of its HTTP side.
        pid: of the process.
    """

    def __init__(self, settings: Settings, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.url = f"http://{settings.host}:{settings.port}"
        self._log = folder / "gateway.log"
        values = {
            f"LIGHTBOX_INGEST_GATEWAY_{name.upper()}": str(value)
            for name, value in settings.model_dump(mode="json", exclude_unset=True).items()
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", "ingest_gateway"],
                cwd=CHECKOUT,
                env={**os.environ, **values, **(environment or {})},
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.alive, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"the gateway did not start: {self._log.read_text()[-3000:]}"
            time.sleep(0.1)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def stop(self) -> None:
        """Ends it."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

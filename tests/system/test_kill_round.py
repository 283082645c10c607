"""kill -9 of each server and service, one after another, while two hospitals send.

The judge is the senders' own ledger. If an instance that was acknowledged is missing, changed, doubled or in the other
hospital, somebody's images are lost or shown to strangers.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import FileDataset, dcmread
from pydicom.uid import UID, generate_uid

from cli.edges import spool_status
from deploy.local.control import read_status
from deploy.local.home import Home
from deploy.local.service_parts import Edge, known_edges
from libs.dicom.part10 import read_file_meta
from tests.support.access import bearer, user_token
from tests.support.samples import sample
from tests.support.shown import Shown

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

STUDIES = 4
AS_STORED = "application/dicom; transfer-syntax=*"


def data_set_hash(part10: bytes) -> str:
    """SHA-256 of what C-STORE carries: everything after the file meta information."""
    return hashlib.sha256(part10[read_file_meta(part10).dataset_offset :]).hexdigest()


@dataclass
class Ledger:
    """What one hospital was told is stored.

    Attributes:
        acknowledged: hash of the data set by SOP Instance UID.
        studies: study and series of each instance.
        refused: how often a store failed and was tried again.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    studies: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: int = 0


class Hospital(threading.Thread):
    """Sends instance after instance with DCMTK, each until it is acknowledged."""

    def __init__(self, edge: Edge, folder: Path, uids: Iterator[tuple[str, str, str]], seed: int) -> None:
        super().__init__(name=edge.tenant, daemon=True)
        self.edge = edge
        self.ledger = Ledger()
        self.enough = threading.Event()
        self._folder = folder
        self._uids = uids
        self._noise = np.random.default_rng(seed)
        self._image = plain_image()

    def run(self) -> None:
        """Sends until it is enough."""
        self._folder.mkdir()
        for study, series, instance in self._uids:
            path = self._write(study, series, instance)
            while not self._store(path):
                self.ledger.refused += 1
                time.sleep(0.2)
            self.ledger.acknowledged[instance] = data_set_hash(path.read_bytes())
            self.ledger.studies[instance] = (study, series)
            path.unlink()
            if self.enough.is_set():
                return

    def _write(self, study: str, series: str, instance: str) -> Path:
        """An image that no other hospital has under the same UIDs."""
        image = self._image
        image.PatientName, image.PatientID = f"Round^{self.edge.tenant}", f"ROUND-{self.edge.tenant}"
        image.StudyInstanceUID, image.SeriesInstanceUID = UID(study), UID(series)
        image.SOPInstanceUID = UID(instance)
        image.file_meta.MediaStorageSOPInstanceUID = UID(instance)
        pixels = self._noise.integers(0, 4096, (image.Rows, image.Columns), dtype=np.uint16)
        image.PixelData = pixels.tobytes()
        path = self._folder / "next.dcm"
        image.save_as(path)
        return path

    def _store(self, path: Path) -> bool:
        command = ["storescu", "-to", "20", "-ta", "20", "-td", "20", "-aec", self.edge.ae_title, "127.0.0.1"]
        done = subprocess.run([*command, str(self.edge.dimse_port), str(path)], capture_output=True, check=False)
        return done.returncode == 0


def plain_image() -> FileDataset:
    """A real image without what DCMTK leaves out when it sends: group lengths and trailing padding."""
    image = dcmread(sample("MR_small.dcm").path)
    for tag in [tag for tag in image.keys() if tag.element == 0 or tag == 0xFFFCFFFC]:  # noqa: SIM118
        del image[tag]
    return image


def numbered(studies: list[str], series: list[str]) -> Iterator[tuple[str, str, str]]:
    """UIDs without end; given the same lists, every hospital gets the same ones."""
    number = 0
    while True:
        at = number % len(studies)
        yield studies[at], series[at], f"{series[at]}.{number}"
        number += 1


def wait_until_well(home: Home, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not (status := read_status(home, memory=False)).is_well:
        ill = [f"{part.name}: {part.state}" for part in status.parts if part.state != "running"]
        assert time.monotonic() < deadline, f"not well after {seconds:g} s: {', '.join(ill)}"
        time.sleep(0.2)


def wait_until_quiet(edges: list[Edge], seconds: float = 120) -> None:
    """Until nothing waits in a spool."""
    deadline = time.monotonic() + seconds
    for edge in edges:
        while (status := spool_status(edge)) is None or status["waiting"]["instances"]:
            assert time.monotonic() < deadline, f"{edge.part_name} still holds: {status}"
            time.sleep(0.2)
        assert status["refused"]["instances"] == 0, status


def check(shown: Shown, tenant: str, user: str, ledger: Ledger) -> None:
    """Compares the ledger with what the tenant's user can retrieve."""
    headers = bearer(user_token(shown, tenant, user))
    with httpx.Client(base_url=f"{shown.url}/dicom-web", headers=headers, timeout=60) as client:
        for study in sorted({study for study, _ in ledger.studies.values()}):
            sent = sorted(uid for uid, (its, _) in ledger.studies.items() if its == study)
            listed: list[str] = []
            for _ in range(150):
                answer = client.get(f"/studies/{study}/instances", params={"limit": 1000})
                listed = (
                    sorted(row["00080018"]["Value"][0] for row in answer.json()) if answer.status_code == 200 else []
                )
                if set(sent) <= set(listed):
                    break
                time.sleep(0.2)
            # An instance whose acknowledgement was lost on its way may be there as well, but nothing twice.
            assert set(sent) <= set(listed), f"lost in {tenant}: {sorted(set(sent) - set(listed))}"
            assert len(listed) == len(set(listed)), f"doubled in {tenant}"
        for instance, (study, series) in ledger.studies.items():
            answer = client.get(f"/studies/{study}/series/{series}/instances/{instance}", headers={"Accept": AS_STORED})
            assert answer.status_code == 200, f"{instance}: {answer.status_code} {answer.text[:200]}"
            assert data_set_hash(answer.content) == ledger.acknowledged[instance], f"{instance} was changed in {tenant}"


@pytest.mark.skipif(
    shutil.which("storescu") is None and os.environ.get("CI") != "true",
    reason="DCMTK is missing: apt-get install dcmtk",
)
def test_nothing_acknowledged_is_lost_when_anything_is_killed(shown: Shown, tmp_path: Path) -> None:
    home = Home(shown.home)
    wait_until_well(home)
    edges = sorted(known_edges(home), key=lambda edge: edge.tenant)
    studies = [str(generate_uid(prefix=None)) for _ in range(STUDIES)]
    series = [f"{generate_uid()[:40].rstrip('.')}.1" for _ in studies]
    hospitals = [
        Hospital(edge, tmp_path / edge.tenant, numbered(studies, series), seed) for seed, edge in enumerate(edges)
    ]
    for hospital in hospitals:
        hospital.start()
    killed = []
    for part in read_status(home, memory=False).parts:
        pid = next(p.pid for p in read_status(home, memory=False).parts if p.name == part.name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.append(part.name)
        time.sleep(1.0)
        wait_until_well(home)
        time.sleep(0.5)
    for hospital in hospitals:
        hospital.enough.set()
    for hospital in hospitals:
        hospital.join(120)
        assert not hospital.is_alive(), f"{hospital.name} could not send any more"
    assert {"postgres", "seaweedfs", "kafka", "caddy", "ingest_gateway", "indexing", "dicomweb"} <= set(killed)
    wait_until_quiet(edges)
    for hospital, (tenant, user) in zip(hospitals, (("north", "anna"), ("south", "rosa")), strict=True):
        assert hospital.edge.tenant == tenant
        assert len(hospital.ledger.acknowledged) > 50, "too little was sent to mean anything"
        check(shown, tenant, user, hospital.ledger)

"""STOW-RS of CT slices of 0.5 MB in batches of 100: Lightbox beside Orthanc with its DICOMweb plug-in.

``python -m benchmarks.stow [SLICES]``. Lightbox takes the batch as clients bring it: through the front door, with a
token, and it answers when the object store and Kafka have it. A further row is the ingest gateway alone, without the
front door. Orthanc runs without authentication and is asked directly. What was stored is read back by WADO-RS after
each run and compared by SHA-256.

Beside the speed it shows where the time goes: the processor time of each process for one instance, which says more
than the speed while the machine is busy. Then it counts the requests to the object store for each 1000 instances, by
the object store's own metrics.
"""

import hashlib
import http.client
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from pydicom import dcmread

from benchmarks.measure import console, interleave, report
from benchmarks.peers import orthanc
from benchmarks.samples import write_ct_series
from benchmarks.stack import Stack, running_stack

BATCH = 100
BOUNDARY = "benchmark-boundary-4b1c"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
PROCESSES = {"front door": "caddy", "ingest gateway": "ingest_gateway", "object store": "seaweedfs"}


@dataclass(frozen=True)
class Series:
    """A series that was made to be stored: its address below ``/studies`` and the SHA-256 of its files."""

    path: str
    hashes: frozenset[str]
    bodies: tuple[bytes, ...]


@dataclass(frozen=True)
class Door:
    """Where a batch is sent and where it is read back.

    Attributes:
        store: root of DICOMweb that takes it.
        read: root of DICOMweb that gives it.
        headers: what lets one in.
        processes: name → process id of what works for it on this machine.
        seconds: processor time that each of them has spent on storing; ``instances`` how many were stored.
    """

    store: str
    read: str
    headers: Mapping[str, str]
    processes: Mapping[str, int]
    seconds: Counter[str] = field(default_factory=Counter)

    def spent(self) -> Counter[str]:
        """Processor time of each process since its start, in seconds, and that of this one, which sends."""
        pids = {**self.processes, "sender": os.getpid()}
        return Counter({name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()})


def make_series(folder: Path, slices: int) -> Series:
    """Writes a new CT series and the bodies of the requests that carry it."""
    files = write_ct_series(folder, slices, seed=int.from_bytes(os.urandom(4), "big"))
    head = dcmread(files[0], stop_before_pixels=True)
    contents = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    return Series(
        f"/studies/{head.StudyInstanceUID}/series/{head.SeriesInstanceUID}",
        frozenset(hashlib.sha256(content).hexdigest() for content in contents),
        tuple(_body(contents[start : start + BATCH]) for start in range(0, slices, BATCH)),
    )


def _body(contents: Sequence[bytes]) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = [piece for content in contents for piece in (head, content, b"\r\n")]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def store(door: Door, scratch: Path, slices: int) -> float:
    """Stores a new series over one connection and reads it back; returns instances per second of the storing.

    Raises:
        RuntimeError: an answer was not 200, or what is kept is not what was sent.
    """
    series = make_series(Path(tempfile.mkdtemp(dir=scratch)), slices)
    parts = urlsplit(door.store)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    connection.connect()
    headers = {**door.headers, "Content-Type": TYPE, "Accept": "application/dicom+json"}
    before = door.spent()
    started = time.perf_counter()
    for body in series.bodies:
        connection.request("POST", f"{parts.path}/studies", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{door.store} answered {answer.status}: {text[:300]!r}")
    seconds = time.perf_counter() - started
    connection.close()
    door.seconds.update(door.spent() - before)
    door.seconds["instances"] += slices
    check(door, series)
    return slices / seconds


def check(door: Door, series: Series) -> None:
    """Reads the series back, as it is kept, until all of it is there.

    Raises:
        RuntimeError: it is not what was sent.
    """
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    for _ in range(100):
        answer = httpx.get(f"{door.read}{series.path}", headers={**door.headers, "Accept": accept}, timeout=300)
        found = frozenset(map(_sha256, _parts(answer))) if answer.status_code == 200 else frozenset()
        if found == series.hashes:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{door.read} keeps {len(found & series.hashes)} of {len(series.hashes)} instances as sent")


def _parts(answer: httpx.Response) -> Iterator[memoryview]:
    found = re.search(r'boundary="?([^";]+)', answer.headers["content-type"])
    if found is None:
        raise RuntimeError("the answer has no boundary")
    delimiter = f"--{found.group(1)}".encode()
    content = memoryview(answer.content)
    pieces = [match.span() for match in re.finditer(re.escape(delimiter), answer.content)]
    for (_, start), (end, _) in pairwise(pieces):
        begin = answer.content.index(b"\r\n\r\n", start) + 4
        yield content[begin : end - 2]


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def report_spent(doors: Mapping[str, Door]) -> None:
    """Prints the processor time of one instance, process by process."""
    for title, door in doors.items():
        each = {n: 1000 * s / door.seconds["instances"] for n, s in door.seconds.items() if n != "instances"}
        listed = ", ".join(f"{name} {spent:.1f}" for name, spent in sorted(each.items()))
        console.print(f"{title}: {sum(each.values()):.1f} ms of processor time an instance ({listed})")


def requests_to_s3(stack: Stack) -> Counter[str]:
    """How many requests the object store has answered so far, by its own count: ``PUT lightbox-north`` → number."""
    text = httpx.get(f"http://127.0.0.1:{stack.s3_metrics_port}/metrics", timeout=30).text
    counted: Counter[str] = Counter()
    for labels, number in re.findall(r"^SeaweedFS_s3_request_total\{(.*)\} ([0-9.e+]+)$", text, re.MULTILINE):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        counted[f"{label['type']} {label['bucket']}"] += int(float(number))
    return counted


def count_requests(stack: Stack, door: Door, scratch: Path, instances: int) -> None:
    """Stores 1000 instances (ten series) and prints what that asked of the object store."""
    before = requests_to_s3(stack)
    for _ in range(instances // BATCH):
        series = make_series(Path(tempfile.mkdtemp(dir=scratch)), BATCH)
        headers = {**door.headers, "Content-Type": TYPE}
        answer = httpx.post(f"{door.store}/studies", content=series.bodies[0], headers=headers, timeout=300)
        answer.raise_for_status()
    time.sleep(10)  # indexing writes its documents
    for name, number in sorted((requests_to_s3(stack) - before).items()):
        console.print(f"{name}: {number} requests for {instances} instances")


def main() -> None:
    """Measures the three doors, interleaved, and counts the requests to the object store."""
    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as name, running_stack() as stack, orthanc(Path(name) / "orthanc") as peer:
        scratch = Path(name)
        front = f"{stack.address}/dicom-web"
        headers = {"Authorization": f"Bearer {stack.machine_token()}"}
        ours = {name: stack.pids[part] for name, part in PROCESSES.items()}
        behind = {name: pid for name, pid in ours.items() if name != "front door"}
        doors = {
            "Lightbox": Door(front, front, headers, ours),
            "Lightbox's ingest gateway alone": Door(stack.gateway, front, headers, behind),
            peer.name: Door(peer.http, peer.http, {}, {peer.name: peer.pid}),
        }
        runs = {title: partial(store, door, scratch, slices) for title, door in doors.items()}
        figures = interleave(runs)
        report(f"STOW-RS, batches of {BATCH} CT slices of 0.5 MB", "instances/s", figures, ours="Lightbox")
        report_spent(doors)
        count_requests(stack, doors["Lightbox"], scratch, 1000)


if __name__ == "__main__":
    main()

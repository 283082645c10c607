"""What one tenant feels of another's flood: the time of its small stores, with the flood and without.

``python -m benchmarks.flood [SECONDS]``. The southern tenant stores a batch of five CT slices every 0.3 s through the
front door. In every second leg the northern tenant floods: eight connections that each store batches of 60 slices, one
after another, and come again half a second after they were refused. Legs are interleaved; each lasts SECONDS (10 by
default).
What the southern tenant stored last in each leg is read back and compared by SHA-256. ``--edge`` lets the northern
tenant's edge send C-STOREs as well; on one machine the edge takes its share of the same processors.

Besides the answer, the time until QIDO-RS shows a batch is taken, of every third one.
"""

import argparse
import http.client
import itertools
import json
import multiprocessing
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

from rich.table import Table

from benchmarks.batches import TYPE, Batch, Template
from benchmarks.measure import RUNS, console, machine
from benchmarks.samples import write_ct_series
from benchmarks.stack import Stack, running_stack
from benchmarks.stow import Door, Series, check
from deploy.demo.people import NORTH, SOUTH

SMALL = 5
"""Slices of the modest tenant's batch."""
EVERY = 0.3
"""Seconds from one to the next."""
LARGE = 60
"""Slices of a batch of the flood."""
CONNECTIONS = 8
WARM_UP = 3.0
"""Seconds of flood before anything is measured."""


@dataclass
class Leg:
    """What the modest tenant got, in seconds.

    Attributes:
        answered: from sending a batch to its answer.
        visible: from that answer until QIDO-RS shows the batch.
        refused: batches that were not stored.
        flood: bytes of the flood that were stored meanwhile, and requests of it that were refused.
    """

    answered: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    refused: int = 0
    flood: tuple[int, int] = (0, 0)


class Client:
    """A connection to the front door with a token."""

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        self._token = token

    def store(self, body: bytes | bytearray) -> int:
        """Stores a batch; returns the status. A connection that was closed counts as 503."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": TYPE}
        try:
            self._http.request("POST", "/dicom-web/studies", body, headers)
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            return 503
        return answer.status

    def instances(self, study: str) -> int:
        """How many instances of a study QIDO-RS shows."""
        path = f"/dicom-web/studies?StudyInstanceUID={study}&includefield=00201208"
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/dicom+json"}
        self._http.request("GET", path, headers=headers)
        answer = self._http.getresponse()
        content = answer.read()
        found = json.loads(content) if answer.status == 200 else []
        return int(found[0]["00201208"]["Value"][0]) if found else 0


def flood(address: str, token: str, template: Template, stop: Event, stored: "Sequence[int]", numbers: int) -> None:
    """The flood: a process of its own, so that what it costs to send is not counted as waiting."""
    counted = stored
    lock = threading.Lock()

    def connection(place: int) -> None:
        client = Client(address, token)
        for number in itertools.count(numbers + place * 100_000):
            if stop.is_set():
                return
            status = client.store(template.fresh(number).body)
            with lock:
                counted[0 if status == 200 else 1] += template.size if status == 200 else 1  # type: ignore[index]
            if status != 200:
                stop.wait(0.5)

    threads = [threading.Thread(target=connection, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def flooding(stack: Stack, template: Template, numbers: int, edge_files: Path | None) -> Iterator["Sequence[int]"]:
    """The flood, as long as the block lasts: bytes it has stored, requests that were refused."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    counted = context.Array("q", [0, 0], lock=False)
    token = stack.machine_token(NORTH.tenant)
    arguments = (stack.address, token, template, stop, counted, numbers)
    process = context.Process(target=flood, args=arguments, daemon=True)
    process.start()
    sending = threading.Thread(target=_send_to_edge, args=(stack, edge_files, stop)) if edge_files else None
    if sending:
        sending.start()
    try:
        time.sleep(WARM_UP)
        yield counted
    finally:
        stop.set()
        if sending:
            sending.join()
        process.join(120)
        process.kill()


def _send_to_edge(stack: Stack, files: Path, stop: Event) -> None:
    command = ["storescu", "+IR", "-pdu", "131072", "-aec", stack.edge_title, "+sd", "127.0.0.1"]
    while not stop.is_set():
        subprocess.run([*command, str(stack.edge_port), str(files)], capture_output=True, check=False, timeout=600)


def modest(stack: Stack, template: Template, numbers: Iterator[int], seconds: float) -> Leg:
    """One leg of the modest tenant: a batch every ``EVERY`` seconds, and for some the time until they can be found."""
    token = stack.machine_token(SOUTH.tenant)
    client, leg, watching = Client(stack.address, token), Leg(), []
    batch = template.fresh(next(numbers))
    last: Batch | None = None
    due = time.perf_counter()
    end = due + seconds
    for number in itertools.count():
        batch = template.fresh(next(numbers))
        time.sleep(max(0.0, due - time.perf_counter()))
        if due >= end:
            break
        began = time.perf_counter()
        status = client.store(batch.body)
        leg.answered.append(time.perf_counter() - began)
        if status != 200:
            leg.refused += 1
        elif number % 3 == 0:
            watching.append(threading.Thread(target=_watch, args=(stack.address, token, batch.study, leg)))
            watching[-1].start()
        last = batch if status == 200 else last
        due = max(due + EVERY, time.perf_counter())
    for thread in watching:
        thread.join()
    if last is not None:
        root = f"{stack.address}/dicom-web"
        path = f"/studies/{last.study}/series/{last.series}"
        check(Door(root, root, {"Authorization": f"Bearer {token}"}, {}), Series(path, last.hashes, ()))
    return leg


def _watch(address: str, token: str, study: str, leg: Leg) -> None:
    began, client = time.perf_counter(), Client(address, token)
    while time.perf_counter() - began < 60 and client.instances(study) < SMALL:
        time.sleep(0.03)
    leg.visible.append(time.perf_counter() - began)


def settle(stack: Stack, numbers: Iterator[int], template: Template) -> None:
    """Waits until nothing of the flood is left to be done: three batches in a row are found within a second."""
    token = stack.machine_token(NORTH.tenant)
    client = Client(stack.address, token)
    quick, tried = 0, 0
    while quick < 3 and tried < 30:
        batch = template.fresh(next(numbers))
        leg = Leg()
        if client.store(batch.body) == 200:
            _watch(stack.address, token, batch.study, leg)
        quick = quick + 1 if leg.visible and leg.visible[0] < 1 else 0
        tried += 1


def p95(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def measure(stack: Stack, scratch: Path, seconds: float, *, edge: bool) -> list[tuple[Leg, Leg]]:
    """All rounds: a leg without the flood, and one with it."""
    small = Template(write_ct_series(scratch / "small", SMALL, seed=1))
    large = Template(write_ct_series(scratch / "large", LARGE, seed=2))
    numbers = itertools.count(1)
    rounds: list[tuple[Leg, Leg]] = []
    modest(stack, small, numbers, 3)
    with console.status("measuring") as status:
        for number in range(RUNS):
            status.update(f"round {number + 1} of {RUNS}: without the flood")
            settle(stack, numbers, small)
            quiet = modest(stack, small, numbers, seconds)
            status.update(f"round {number + 1} of {RUNS}: with the flood")
            with flooding(stack, large, (number + 1) * 1_000_000, scratch / "small" if edge else None) as counted:
                before = tuple(counted)
                loud = modest(stack, small, numbers, seconds)
                loud.flood = (counted[0] - before[0], counted[1] - before[1])
            rounds.append((quiet, loud))
    return rounds


def show(rounds: Sequence[tuple[Leg, Leg]], seconds: float) -> None:
    """Prints the table."""
    table = Table(title=f"A tenant's stores of {SMALL} CT slices during another's flood", caption=machine())
    for heading in ("", "without the flood", "with it", "ratio, median", "lowest – highest"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, of in (("answer, p95", "answered"), ("answer, median", "answered"), ("visible after, p95", "visible")):
        take = statistics.median if "median" in name else p95
        pairs = [(take(getattr(quiet, of)), take(getattr(loud, of))) for quiet, loud in rounds]
        ratios = [loud / quiet for quiet, loud in pairs]
        without, with_it = (statistics.median(side) for side in zip(*pairs, strict=True))
        spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
        ratio = f"{statistics.median(ratios):.2f} ×"
        table.add_row(name, f"{without * 1e3:,.0f} ms", f"{with_it * 1e3:,.0f} ms", ratio, spread)
    console.print(table)
    stored = statistics.median(loud.flood[0] for _, loud in rounds) / seconds / 1e6
    turned_away = sum(loud.flood[1] for _, loud in rounds)
    refused = sum(quiet.refused + loud.refused for quiet, loud in rounds)
    tried = sum(len(quiet.answered) + len(loud.answered) for quiet, loud in rounds)
    console.print(f"The flood stored {stored:,.0f} MB/s and was refused {turned_away} times;")
    console.print(f"the other tenant was refused {refused} times of {tried}.")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=10, help="length of a leg")
    parser.add_argument("--edge", action="store_true", help="the northern edge sends as well")
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(running_stack())
        show(measure(running, scratch, options.seconds, edge=options.edge), options.seconds)


if __name__ == "__main__":
    main()

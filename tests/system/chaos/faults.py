"""What can go wrong, each with its name, how it begins and how it ends."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from libs.crash import CRASH_POINTS
from tests.support.fault_proxy import Kind, LineFault
from tests.system.chaos.rig import EDGE, TENANTS, Rig

ANY: Final = ("dcmtk", "send", "stow", "tls")
BY_EDGE: Final = ("dcmtk", "send")
BY_WEB: Final = ("stow",)
BY_TLS: Final = ("tls",)
_KILLED: Final = (
    "ingest_gateway",
    "indexing",
    "dicomweb",
    "audit",
    "identity",
    "caddy",
    "postgres",
    "seaweedfs",
    "kafka",
)
_HUNG: Final = ("ingest_gateway", "indexing", "caddy", "postgres", "seaweedfs", "kafka")
_DOWN: Final = ("postgres", "seaweedfs", "kafka")
_FULL: Final = ("seaweedfs", "kafka", "postgres")
_KINDS: Final[tuple[Kind, ...]] = ("cut", "reset", "delay", "swallow", "trickle", "narrow")
_LINES: Final = ("scanner", "uplink", "web", "tls", "ingest-s3", "indexing-s3", "indexing-postgres")
_FREQUENT: Final = frozenset({"edge.written", "edge.synced", "edge.entered", "ingest.part_spooled"})
"""Points that are passed for each image."""


class NotReached(Exception):
    """The fault did not happen: a crash point was not passed."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: ``WHAT.WHERE`` as reports have it.
        doors: the doors that it concerns.
        strike: what happens between its beginning and its end; it takes the rig and the run's chance.
    """

    name: str
    doors: tuple[str, ...]
    strike: Callable[[Rig, random.Random], None]


def all_faults() -> list[Fault]:
    """Every fault there is."""
    edge = [Fault("kill.edge", BY_EDGE, lambda rig, chance: _kill(rig, _edge(chance)))]
    edge.append(Fault("hang.edge", BY_EDGE, lambda rig, chance: _hang(rig, _edge(chance), chance)))
    edge.append(Fault("full.edge", BY_EDGE, lambda rig, chance: _fill(rig, _edge(chance), chance)))
    killed = [Fault(f"kill.{part}", ANY, _of(_kill_of, part)) for part in _KILLED]
    hung = [Fault(f"hang.{part}", ANY, _of(_hang, part)) for part in _HUNG]
    down = [Fault(f"down.{part}", ANY, _of(_down, part)) for part in _DOWN]
    full = [Fault("full.ingest", ANY, _of(_fill, "ingest_gateway"))]
    full += [Fault(f"full.{part}", ANY, _of(_bound, part)) for part in _FULL]
    lines = [Fault(f"{line}.{kind}", _doors_of(line), _break(line, kind)) for line in _LINES for kind in _KINDS]
    crashes = [
        Fault(f"crash.{point}", _doors_of(point.partition(".")[0]), _of(_crash, point)) for point in CRASH_POINTS
    ]
    return [*edge, *killed, *hung, *down, *full, *lines, *crashes]


def fault_of(seed: int, faults: Sequence[Fault]) -> Fault:
    """The fault of a run. As many runs as there are faults, in a row, have each fault once."""
    lap, place = divmod(seed, len(faults))
    deck = list(faults)
    random.Random(f"deck {lap}").shuffle(deck)
    return deck[place]


def second_fault(chance: random.Random, faults: Sequence[Fault], door: str) -> Fault | None:
    """What goes wrong besides, in one run of five: a process is killed."""
    if chance.random() >= 0.2:
        return None
    return chance.choice([fault for fault in faults if fault.name.startswith("kill.") and door in fault.doors])


def crash_part(point: str, chance: random.Random) -> str:
    """The part that passes a crash point."""
    area = point.partition(".")[0]
    if area == "edge":
        return _edge(chance)
    if point == "consumer.handled":
        return chance.choice(["indexing", "audit"])
    if point == "audit.appended":
        return "audit"
    return {"ingest": "ingest_gateway", "audit": "ingest_gateway"}.get(area, "indexing")


def _doors_of(place: str) -> tuple[str, ...]:
    return {"scanner": BY_EDGE, "uplink": BY_EDGE, "edge": BY_EDGE, "web": BY_WEB, "tls": BY_TLS}.get(place, ANY)


def _edge(chance: random.Random) -> str:
    return f"edge-{chance.choice(TENANTS)}-{EDGE}"


def _of(strike: Callable[[Rig, str, random.Random], None], what: str) -> Callable[[Rig, random.Random], None]:
    return lambda rig, chance: strike(rig, what, chance)


def _kill(rig: Rig, part: str) -> None:
    rig.signal(part, signal.SIGKILL)


def _kill_of(rig: Rig, part: str, _chance: random.Random) -> None:
    _kill(rig, part)


def _hang(rig: Rig, part: str, chance: random.Random) -> None:
    """Stops for a while; what hangs for long is started anew by its supervisor, which is another fault."""
    rig.signal(part, signal.SIGSTOP)
    try:
        time.sleep(chance.uniform(0.3, 2.0))
    finally:
        rig.signal(part, signal.SIGCONT)


def _down(rig: Rig, part: str, chance: random.Random) -> None:
    with rig.without_supervisor():
        _kill(rig, part)
        time.sleep(chance.uniform(1.0, 2.5))


def _fill(rig: Rig, part: str, chance: random.Random) -> None:
    disk = rig.disks[part]
    if not disk.mounted:
        _bound(rig, part, chance)
        return
    disk.fill()
    try:
        time.sleep(chance.uniform(0.3, 1.0))
    finally:
        disk.free()


def _bound(rig: Rig, part: str, chance: random.Random) -> None:
    rig.bound_files(part, 4096)
    try:
        time.sleep(chance.uniform(0.3, 1.0))
    finally:
        rig.bound_files(part, -1)


def _break(line: str, kind: Kind) -> Callable[[Rig, random.Random], None]:
    def strike(rig: Rig, chance: random.Random) -> None:
        name = f"{line}-{chance.choice(TENANTS)}" if line == "scanner" else line
        amount = {"delay": chance.uniform(0.05, 0.4), "narrow": chance.uniform(20_000, 200_000)}.get(kind, 0.0)
        rig.lines[name].inject(LineFault(kind, chance.choice([0, 0, 300, 5_000, 50_000, 200_000]), amount))
        try:
            time.sleep(chance.uniform(0.3, 1.5))
        finally:
            rig.lines[name].mend()

    return strike


def _crash(rig: Rig, point: str, chance: random.Random) -> None:
    part = crash_part(point, chance)
    with armed(rig, part, point, chance.randint(1, 3) if point in _FREQUENT else 1) as reached:
        until = time.monotonic() + 4
        while not reached():
            if time.monotonic() > until:
                raise NotReached(f"{part} did not pass {point}")
            time.sleep(0.05)


@contextmanager
def armed(rig: Rig, part: str, point: str, passage: int = 1) -> Iterator[Callable[[], bool]]:
    """Arms a part's crash point for the block; the function that is given says whether it was reached."""
    file = rig.crash_file(part)
    new = file.with_suffix(".new")
    new.write_text(f"{point}:{passage}")
    new.replace(file)
    try:
        yield lambda: not file.exists()
    finally:
        file.unlink(missing_ok=True)

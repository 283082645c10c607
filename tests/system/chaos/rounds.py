"""One run after another: send, break, heal, wait until all is quiet, judge."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.services.ingest_gateway.instances import sha256
from tests.support.ledger import Entry, Ledger, Sent
from tests.system.chaos.batches import Image, batch_of
from tests.system.chaos.doors import Dcmtk, Door, OwnScu, Stow
from tests.system.chaos.faults import Fault, NotReached, all_faults, fault_of, second_fault
from tests.system.chaos.judge import Findings, Judge, NotSettled
from tests.system.chaos.rig import TENANTS, Rig, called

_SECONDS: Final = 120.0
"""How long a run may take to recover."""
_HEAD_START: Final = 0.05
"""Seconds that a fault has before a load that waits for it."""


class Stuck(Exception):
    """What was sent is not acknowledged, or not there, in time; the text says what."""


@dataclass
class Result:
    """How one run went.

    Attributes:
        seed: what repeats it.
        fault: the name of its fault.
        besides: the name of what went wrong as well.
        door: the way in.
        acknowledged: images that were acknowledged, both hospitals together.
        refused: stores that were refused or not answered, and were tried again.
        recovery: seconds from the end of the fault until all was there.
        seconds: how long the run took.
        findings: what is not as it must be.
        note: what else is to be said.
        stuck: why it did not end in time.
    """

    seed: int
    fault: str
    besides: str = ""
    door: str = ""
    acknowledged: int = 0
    refused: int = 0
    recovery: float = 0.0
    seconds: float = 0.0
    findings: Findings = field(default_factory=Findings)
    note: str = ""
    stuck: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.findings or self.stuck)


class Chaos:
    """Runs on one rig, with one ledger.

    Arguments:
        rig: the stack, set up.
        folder: for the ledger and files on their way.
        doors: the doors to be used.
    """

    def __init__(self, rig: Rig, folder: Path, doors: Sequence[str]) -> None:
        self._rig = rig
        self._folder = folder
        self._doors = doors
        self._ledger = Ledger(folder / "ledger.jsonl")
        self._sent = Sent()
        self._judge = Judge(rig, self._sent, TENANTS)
        self._faults = [fault for fault in all_faults() if set(fault.doors) & set(doors)]
        self._studies: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
        self._own: list[tuple[str, str]] = []

    @property
    def entries(self) -> Sequence[Entry]:
        """All acknowledgements until now."""
        return self._ledger.entries

    def close(self) -> None:
        """Closes files and connections."""
        self._ledger.close()
        self._judge.close()

    def run(self, seed: int, named: str = "") -> Result:
        """One run.

        Arguments:
            seed: decides about everything in it.
            named: the one fault, if it is not for the seed to decide.
        """
        chance = random.Random(seed)
        fault = next(f for f in self._faults if f.name == named) if named else fault_of(seed, self._faults)
        door = chance.choice([door for door in fault.doors if door in self._doors])
        second = None if named else second_fault(chance, self._faults, door)
        result = Result(seed, fault.name, second.name if second else "", door)
        moments = sorted(_Moment.of(chance) for _ in range(2))
        sending = _Sending(self._ledger, self._sent, seed, self._folder / str(seed), moments[:1])
        began = time.monotonic()
        with ThreadPoolExecutor(len(TENANTS)) as pool:
            hospitals = [pool.submit(sending.hospital, tenant, self._door(door, tenant)) for tenant in TENANTS]
            for moment, one in zip(moments, (fault, second), strict=True):
                if one is not None:
                    sending.await_moment(moment)
                    self._strike(one, chance, result)
            healed = time.monotonic()
            sending.deadline = healed + _SECONDS
            for hospital in hospitals:
                try:
                    hospital.result()
                except Stuck as error:
                    result.stuck = str(error)
        entries = [entry for entry in self._ledger.entries if entry.run == seed]
        result.acknowledged, result.refused = (
            len({(e.tenant, e.instance, e.data_set) for e in entries}),
            sending.refused,
        )
        self._remember(seed)
        if not result.stuck:
            self._judge_run(seed, entries, result, healed)
        result.seconds = time.monotonic() - began
        return result

    def judge_all(self) -> Findings:
        """Judges all that was ever acknowledged, every instance by its own address as well.

        Raises:
            NotSettled: nobody answers.
        """
        self._rig.await_well()
        entries = self._ledger.entries
        findings = self._judge.examine(entries)
        findings += self._judge.examine_singly(entries)
        for tenant, study in self._own:
            findings += self._judge.examine_own(tenant, study)
        for tenant in TENANTS:
            findings += self._judge.examine_record(tenant)
            theirs = {(e.study, e.instance) for e in entries if e.tenant == tenant}
            counted = self._judge.studies(tenant, f"CHAOS-{tenant}")
            for study in self._studies[tenant]:
                expected = sum(its == study for its, _ in theirs)
                if counted.get(study, 0) != expected:
                    words = f"{tenant} counts {counted.get(study, 0)} of {expected} in {study}"
                    (findings.doubled if counted.get(study, 0) > expected else findings.lost).append(words)
        return findings

    def _door(self, name: str, tenant: str) -> Door:
        edge, port = self._rig.edges[tenant], self._rig.lines[f"scanner-{tenant}"].port
        if name == "dcmtk":
            return Dcmtk(port, edge.ae_title)
        if name == "tls":
            return Dcmtk(self._rig.lines["tls"].port, called(tenant), self._rig.tls[tenant])
        if name == "send":
            return OwnScu(port, edge.ae_title)
        return Stow(self._rig.lines["web"].port, lambda: self._rig.token(tenant))

    def _strike(self, fault: Fault, chance: random.Random, result: Result) -> None:
        try:
            fault.strike(self._rig, chance)
        except NotReached as error:
            result.note = str(error)

    def _remember(self, seed: int) -> None:
        for tenant in TENANTS:
            batch = batch_of(seed, tenant)
            self._studies[tenant].update(batch.studies)
            self._own.append((tenant, batch.own))

    def _judge_run(self, seed: int, entries: list[Entry], result: Result, healed: float) -> None:
        deadline = healed + _SECONDS
        try:
            while not self._rig.spools_are_empty():
                if time.monotonic() > deadline:
                    raise NotSettled("a spool is not empty")
                time.sleep(0.1)
            if refused := self._rig.refused_by_cloud():
                raise NotSettled(f"the cloud refused {len(refused)} instances: {refused[0]}")
            self._judge.await_listed(entries, deadline)
            result.recovery = time.monotonic() - healed
            found = self._judge.examine(entries)
            while found.lost and time.monotonic() < deadline:
                # A second version of an instance that is listed already may still be on its way to the catalog.
                time.sleep(0.2)
                found = self._judge.examine(entries)
            result.findings += found
            for tenant in TENANTS:
                result.findings += self._judge.examine_own(tenant, batch_of(seed, tenant).own)
        except NotSettled as error:
            result.stuck = str(error)


@dataclass(frozen=True, order=True)
class _Moment:
    """When a fault begins.

    Attributes:
        load: with this load of the batch.
        later: seconds after it has begun; at 0, the load waits for the fault.
    """

    load: int
    later: float

    @classmethod
    def of(cls, chance: random.Random) -> "_Moment":
        """One by chance."""
        return cls(chance.randrange(3), chance.choice([0.0, chance.uniform(0.0, 0.15)]))


class _Sending:
    """The two hospitals of one run."""

    def __init__(self, ledger: Ledger, sent: Sent, seed: int, folder: Path, awaited: Sequence[_Moment]) -> None:
        self.refused = 0
        self.deadline = float("inf")
        self._ledger = ledger
        self._sent = sent
        self._seed = seed
        self._folder = folder
        self._load = -1
        self._awaited = {moment.load: threading.Event() for moment in awaited if not moment.later}
        self._changed = threading.Condition()

    def await_moment(self, moment: _Moment) -> None:
        """Waits until a fault is to begin; what waits for it goes on a little later."""
        with self._changed:
            self._changed.wait_for(lambda: self._load >= moment.load, 3)
        time.sleep(moment.later)
        for event in self._awaited.values():
            threading.Timer(_HEAD_START, event.set).start()

    def hospital(self, tenant: str, door: Door) -> None:
        """Sends a hospital's batch until all of it is acknowledged.

        Raises:
            Stuck: it is not, until the deadline.
        """
        chance = random.Random(f"{tenant} {self._seed}")
        for number, images in enumerate(batch_of(self._seed, tenant).loads):
            time.sleep(chance.uniform(0, 0.2))
            self._begin_load(number)
            self._send_load(tenant, door, images)

    def _begin_load(self, number: int) -> None:
        with self._changed:
            self._load = max(self._load, number)
            self._changed.notify_all()
        if number in self._awaited:
            self._awaited[number].wait(4)

    def _send_load(self, tenant: str, door: Door, images: Sequence[Image]) -> None:
        for image in images:
            self._sent.add(tenant, image.instance, image.data_set)
        left = list(images)
        while left:
            taken: list[Image] = []
            refused = door.send(left, self._folder / tenant, self._acknowledging(tenant, door, taken))
            left = [image for image in left if image not in taken]
            if left:
                with self._changed:
                    self.refused += refused
                if time.monotonic() > self.deadline:
                    raise Stuck(f"{tenant} can't store {len(left)} images through {door.name}")
                time.sleep(0.25)

    def _acknowledging(self, tenant: str, door: Door, taken: list[Image]) -> Callable[[Image], None]:
        def acknowledged(image: Image) -> None:
            file = sha256(image.content) if door.takes_files else ""
            self._ledger.acknowledge(
                Entry(
                    self._seed, tenant, image.study, image.series, image.instance, image.data_set, file, door.by_cloud
                )
            )
            taken.append(image)

        return acknowledged

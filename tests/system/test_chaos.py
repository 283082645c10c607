"""A part of ``make chaos``: each process is killed, and each kind of fault happens, while two hospitals send.

The judge is the senders' own ledger. If an instance that was acknowledged is missing, changed, doubled or in the other
hospital, somebody's images are lost or shown to strangers.
"""

import gc
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from libs.crash import CRASH_POINTS
from tests.support.ledger import Sent
from tests.support.system import SystemStack
from tests.system.chaos.batches import batch_of
from tests.system.chaos.faults import ANY, all_faults
from tests.system.chaos.judge import Judge
from tests.system.chaos.report import line
from tests.system.chaos.rig import TENANTS, Rig
from tests.system.chaos.rounds import Chaos

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    # pynetdicom leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        shutil.which("storescu") is None and os.environ.get("CI") != "true",
        reason="DCMTK is missing: apt-get install dcmtk",
    ),
]

KILLED = tuple(fault.name for fault in all_faults() if fault.name.startswith("kill."))
KINDS = (
    "crash.edge.entered",
    "crash.ingest.pack_stored",
    "hang.ingest_gateway",
    "full.edge",
    "full.ingest",
    "full.seaweedfs",
    "scanner.reset",
    "uplink.cut",
    "uplink.trickle",
    "web.narrow",
    "ingest-s3.swallow",
    "indexing-postgres.delay",
)


@pytest.fixture(scope="module")
def rig(stack: SystemStack) -> Iterator[Rig]:
    """The stack of this run, made ready to fail, and left as it was."""
    made = Rig(stack.home, stack.clients)
    try:
        made.set_up()
        yield made
    finally:
        made.tear_down()


@pytest.fixture(scope="module")
def chaos(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """Runs with one ledger."""
    made = Chaos(rig, tmp_path_factory.mktemp("ledger"), ANY)
    yield made
    made.close()
    gc.collect()


def test_every_crash_point_is_passed(rig: Rig, chaos: Chaos) -> None:
    missing = set(CRASH_POINTS)
    with rig.noting_passages() as passages:
        for seed in range(int(time.time()), int(time.time()) + 5):
            result = chaos.run(seed, "scanner.delay")
            assert not result.failed, f"{result.findings} {result.stuck}"
            until = time.monotonic() + 5
            while (missing := set(CRASH_POINTS) - passages()) and time.monotonic() < until:
                time.sleep(0.1)
            if not missing:
                break
    assert missing == set(), "nobody passes them"


@pytest.mark.parametrize(("seed", "fault"), list(enumerate([*KILLED, *KINDS], 1000)))
def test_nothing_acknowledged_is_lost(chaos: Chaos, seed: int, fault: str) -> None:
    result = chaos.run(seed, fault)
    print(line(result, 1, 1, result.seconds))
    assert not result.failed, f"{result.findings} {result.stuck}; again: make chaos RUNS=1 SEED={seed} FAULT={fault}"


def test_the_judge_condemns(rig: Rig, chaos: Chaos) -> None:
    """A judge that finds nothing, whatever happens, would let everything pass."""
    result = chaos.run(int(time.time()), "web.delay")
    entries = [entry for entry in chaos.entries if entry.run == result.seed]
    own = batch_of(result.seed, "north").own
    sent = Sent()
    for entry in entries:
        sent.add(entry.tenant, entry.instance, entry.data_set)
    with closing(Judge(rig, sent, TENANTS)) as judge:
        assert not judge.examine(entries)
        assert not judge.examine_singly(entries)
        assert not judge.examine_own("north", own)
        first = entries[0]
        assert judge.examine([replace(first, instance=f"{first.instance}.1")]).lost, "never stored"
        assert judge.examine([replace(first, data_set="0" * 64)]).lost, "stored with other bytes"
        assert judge.examine([replace(first, file="0" * 64)]).changed, "another file than the one that was named"
        assert judge.examine_singly([replace(first, instance=f"{first.instance}.1")]).lost
        assert judge.examine_own("south", own).strayed, "the other one can see it"
    crossed, other = Sent(), {"north": "south", "south": "north"}
    for entry in entries:
        crossed.add(other[entry.tenant], entry.instance, entry.data_set)
    with closing(Judge(rig, crossed, TENANTS)) as judge:
        assert judge.examine(entries).strayed, "the images of one in the other"
    unknown = Sent()
    for entry in entries:
        unknown.add(entry.tenant, entry.instance, "0" * 64)
    with closing(Judge(rig, unknown, TENANTS)) as judge:
        assert judge.examine(entries).changed, "bytes that nobody has sent"


def test_all_of_it_is_there_at_the_end(chaos: Chaos) -> None:
    findings = chaos.judge_all()
    assert not findings, str(findings)

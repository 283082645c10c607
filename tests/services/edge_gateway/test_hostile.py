"""The hostile corpus at the edge: anything on the clinic's network may send it, and no scanner may feel it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.dicom.part10 import read_file_meta
from tests.services.edge_gateway.edge_process import EdgeProcess, wait_for
from tests.services.edge_gateway.sender import associate, store_raw
from tests.services.edge_gateway.stow_server import StowServer
from tests.support.dicom_bytes import SOP_CLASS, element
from tests.support.hostile import HostileInstance, hostile_instances
from tests.support.hostile.conversation import converse
from tests.support.hostile.corpus import Identity
from tests.support.hostile.peers import HostilePeer, hostile_peers
from tests.support.metering import MIB, Taken, metered

MEMORY = 64 * MIB
SECONDS = 2.0
LEFT_TO_THE_CLOUD = {"sequences-5000-deep", "item-longer-than-its-sequence", "delimiters-without-a-sequence"}
"""The edge finds out which instance it is without looking into sequences; what is wrong there the cloud refuses, and
the edge keeps what was refused until somebody has looked at it."""


class Door:
    """The DIMSE side of one edge."""

    def __init__(self, edge: EdgeProcess) -> None:
        assert edge.process
        self.edge = edge
        self.pid = edge.process.pid
        for _ in range(3):
            self.store_good()
        with metered(self.pid) as taken:
            self.store_good()
        self._usual = taken.processor

    def store(self, file: bytes, identity: Identity) -> int:
        """One C-STORE of the data set; its status."""
        meta = read_file_meta(file)
        association = associate(self.edge, SOP_CLASS, meta.transfer_syntax)
        assert association.is_established
        status, _ = store_raw(association, SOP_CLASS, identity.instance, file[meta.dataset_offset :])
        association.release()
        return status

    def store_good(self) -> None:
        identity = Identity.new()
        assert self.store(identity.file(element(0x00100010, "PN", b"Fine^All")), identity) == 0

    def check(self, taken: Taken) -> None:
        """The process lives, took little, and the next good instance is stored."""
        assert self.edge.process
        assert self.edge.process.poll() is None, self.edge.log.read_text()[-3000:]
        self.store_good()
        assert taken.memory <= MEMORY, f"{taken.memory / MIB:.0f} MiB"
        assert taken.processor <= SECONDS + self._usual, f"{taken.processor:.1f} s"


@pytest.fixture(scope="module")
def own_cloud() -> Iterator[StowServer]:
    server = StowServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def door(own_cloud: StowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    edge = EdgeProcess(
        tmp_path_factory.mktemp("hostile") / "spool",
        own_cloud.port,
        MAXIMUM_INSTANCE_BYTES=64 * MIB,
        NETWORK_TIMEOUT=4,
    )
    edge.start()
    yield Door(edge)
    edge.stop()


@pytest.mark.parametrize(
    "hostile",
    [one for one in hostile_instances() if one.over_dimse],
    ids=lambda one: f"{one.kind}-{one.name}".replace(" ", "-"),
)
def test_an_instance(door: Door, hostile: HostileInstance, own_cloud: StowServer) -> None:
    identity = Identity.new()
    file = hostile.make(identity)
    with metered(door.pid) as taken:
        status = door.store(file, identity)
    if hostile.stored or (hostile.name in LEFT_TO_THE_CLOUD and status == 0):
        assert status == 0 or status >> 12 == 0xB
        wait_for(lambda: identity.instance in own_cloud.uids(), what="the cloud to have it")
        (kept,) = (kept for (uid, _), kept in own_cloud.stored.items() if uid == identity.instance)
        data_set = file[read_file_meta(file).dataset_offset :]
        assert kept[read_file_meta(kept).dataset_offset :] == data_set, "what is kept is what was sent"
    else:
        assert status in hostile.refused
        assert identity.instance not in own_cloud.uids()
    door.check(taken)


@pytest.mark.parametrize("peer", hostile_peers(), ids=lambda one: one.name)
def test_a_peer(door: Door, peer: HostilePeer) -> None:
    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", door.edge.dimse_port), timeout=20)

    with metered(door.pid) as taken:
        ended, statuses = converse(peer, connect, "EDGE", patience=20)
    assert ended, "the edge holds on to a peer that gives it nothing"
    assert not {status for status in statuses if status < 0xA000 and status not in {0x0000, 0x0122, 0x0211, 0x0117}}
    door.check(taken)
    assert not Path("/tmp/lightbox-was-here").exists()
    wait_for(lambda: door.edge.status()["associations"] == 0, seconds=30)

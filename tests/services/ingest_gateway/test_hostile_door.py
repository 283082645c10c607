"""The hostile corpus at the cloud's own DICOM door: from a sender that is let in, and from whoever finds the port."""

import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.dicom.part10 import read_file_meta
from tests.services.edge_gateway.edge_process import free_port
from tests.services.edge_gateway.sender import store_raw
from tests.services.ingest_gateway.door import Pki, door_settings, register
from tests.services.ingest_gateway.gateway_process import GatewayProcess
from tests.support.backing import Backing, new_tenant_id
from tests.support.dicom_bytes import SOP_CLASS, element
from tests.support.dimse_tls import Sender, client_context
from tests.support.hostile import HostileInstance, hostile_instances
from tests.support.hostile.conversation import converse
from tests.support.hostile.corpus import Identity
from tests.support.hostile.peers import HostilePeer, hostile_peers
from tests.support.metering import MIB, Taken, metered
from tests.support.tokens import TokenIssuer

MEMORY = 64 * MIB
SECONDS = 2.0
PATIENCE = 25
_OF_EACH_CLASS = 4


def _some() -> list[HostileInstance]:
    """A few of each class: what reads the header is the same as behind STOW-RS, which takes them all."""
    classes: dict[str, list[HostileInstance]] = defaultdict(list)
    for one in hostile_instances():
        if one.over_dimse:
            classes[one.kind].append(one)
    return [one for members in classes.values() for one in members[:_OF_EACH_CLASS]]


class Door:
    """The door of one gateway process, and a sender that is let in."""

    def __init__(self, process: GatewayProcess, sender: Sender) -> None:
        self.process = process
        self.sender = sender
        for _ in range(3):
            self.store_good()
        with metered(process.pid) as taken:
            self.store_good()
        self._usual = taken.processor

    def store(self, file: bytes, identity: Identity, syntax: str) -> int:
        with self.sender.association([(SOP_CLASS, syntax)]) as association:
            assert association.is_established
            data_set = file[read_file_meta(file).dataset_offset :]
            return store_raw(association, SOP_CLASS, identity.instance, data_set)[0]

    def store_good(self) -> None:
        identity = Identity.new()
        file = identity.file(element(0x00100010, "PN", b"Fine^All"))
        assert self.store(file, identity, "1.2.840.10008.1.2.1") == 0

    def connect_tls(self) -> socket.socket:
        assert self.sender.credential
        context = client_context(self.sender.ca, self.sender.credential)
        return context.wrap_socket(self.connect(), server_hostname="localhost")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.sender.port), timeout=20)

    def check(self, taken: Taken) -> None:
        """The process lives, took little, and the next good instance is stored."""
        assert self.process.alive, self.process.log()[-3000:]
        self.store_good()
        assert taken.memory <= MEMORY, f"{taken.memory / MIB:.0f} MiB"
        assert taken.processor <= SECONDS + self._usual, f"{taken.processor:.1f} s"


@pytest.fixture(scope="module")
def door(backing: Backing, token_issuer: TokenIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder: Path = tmp_path_factory.mktemp("hostile-door")
    pki = Pki(folder / "pki")
    tenant = backing.create_tenant(new_tenant_id())
    credential = pki.client(tenant)
    settings = door_settings(
        backing,
        token_issuer,
        folder / "spool",
        pki,
        port=free_port(),
        max_part=64 * MIB,
        dimse_negotiation_timeout=3,
        dimse_idle_timeout=4,
    )
    process = GatewayProcess(settings, folder)
    title = register(backing, tenant, credential)
    yield Door(process, Sender(pki.ca, settings.dimse_port or 0, title, credential))
    process.stop()


@pytest.mark.parametrize("hostile", _some(), ids=lambda one: f"{one.kind}-{one.name}".replace(" ", "-"))
def test_an_instance(door: Door, hostile: HostileInstance) -> None:
    identity = Identity.new()
    file = hostile.make(identity)
    with metered(door.process.pid) as taken:
        status = door.store(file, identity, read_file_meta(file).transfer_syntax)
    if hostile.stored:
        assert status == 0 or status >> 12 == 0xB
    else:
        assert status in hostile.refused
    door.check(taken)


@pytest.mark.parametrize("peer", hostile_peers(), ids=lambda one: one.name)
def test_a_peer_that_is_let_in(door: Door, peer: HostilePeer) -> None:
    with metered(door.process.pid) as taken:
        ended, statuses = converse(peer, door.connect_tls, door.sender.called, patience=PATIENCE)
    assert ended, "the door holds on to a peer that gives it nothing"
    assert not {status for status in statuses if status < 0xA000 and status not in {0x0000, 0x0122, 0x0211, 0x0117}}
    door.check(taken)
    assert not Path("/tmp/lightbox-was-here").exists()


_WITHOUT_TLS = {
    "web-browser",
    "a-tls-hello",
    "a-request-of-four-gigabytes",
    "peers-that-say-two-bytes",
    "peers-that-say-nothing",
}


@pytest.mark.parametrize("peer", [one for one in hostile_peers() if one.name in _WITHOUT_TLS], ids=lambda one: one.name)
def test_a_peer_without_tls(door: Door, peer: HostilePeer) -> None:
    with metered(door.process.pid) as taken:
        ended, statuses = converse(peer, door.connect, door.sender.called, patience=PATIENCE)
    assert ended
    assert not statuses
    door.check(taken)

"""The hostile corpus at the cloud's STOW-RS: each is stored or refused as it must be, and nobody else feels it."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.services.edge_gateway.edge_process import free_port
from tests.services.ingest_gateway.gateway import settings_for
from tests.services.ingest_gateway.gateway_process import GatewayProcess
from tests.services.ingest_gateway.instances import FAILED, FAILURE_REASON, SHA256, STORED, UID, sha256, values
from tests.support.backing import Backing, new_tenant_id
from tests.support.hostile import HostileInstance, hostile_instances
from tests.support.hostile.bodies import END, TYPE, HostileBody, good, hostile_bodies, part
from tests.support.hostile.corpus import Identity
from tests.support.metering import MIB, Taken, metered
from tests.support.tokens import TokenIssuer

MEMORY = 64 * MIB
SECONDS = 2.0


class Door:
    """STOW-RS of one gateway process, for one tenant."""

    def __init__(self, process: GatewayProcess, tenant: str, issuer: TokenIssuer) -> None:
        self.process = process
        self._path = "/dicom-web/studies"
        self._authorization = issuer.header_for(tenant, ("dicom:write",), lifetime=3600)

    def store(self, file: bytes) -> httpx.Response:
        headers = {**self._authorization, "Content-Type": TYPE}
        return httpx.post(self.process.url + self._path, content=part(file) + END, headers=headers, timeout=60)

    def request(self, body: HostileBody) -> int:
        """Sends the body, however unfit; the status of the answer."""
        place = urlsplit(self.process.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        try:
            connection.putrequest("POST", f"{self._path}/{body.study}" if body.study else self._path)
            headers = {**self._authorization, "Content-Type": body.content_type, **body.headers}
            chunked = "Content-Length" not in headers
            if chunked:
                headers["Transfer-Encoding"] = "chunked"
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                for piece in body.content():
                    if piece:
                        connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if chunked:
                    connection.send(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # it was refused before it ended; the answer may be there all the same
            return connection.getresponse().status
        finally:
            connection.close()

    def check(self, taken: Taken) -> None:
        """The process lives, took little, and the next good instance is stored."""
        assert self.process.alive, self.process.log()[-3000:]
        assert self.store(good()).status_code == 200
        assert taken.memory <= MEMORY, f"{taken.memory / MIB:.0f} MiB"
        assert taken.processor <= SECONDS + _usual(self), f"{taken.processor:.1f} s"


_USUAL: dict[int, float] = {}


def _usual(door: Door) -> float:
    """Processor seconds of a good store."""
    if door.process.pid not in _USUAL:
        with metered(door.process.pid) as taken:
            door.store(good())
        _USUAL[door.process.pid] = taken.processor
    return _USUAL[door.process.pid]


@pytest.fixture(scope="module")
def door(backing: Backing, token_issuer: TokenIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    settings = settings_for(
        backing, token_issuer, folder / "spool", port=free_port(), idle_timeout=3, max_request=2 << 30, max_parts=3000
    )
    process = GatewayProcess(settings, folder)
    found = Door(process, backing.create_tenant(new_tenant_id()), token_issuer)
    for _ in range(5):
        assert found.store(good()).status_code == 200
    yield found
    process.stop()


@pytest.mark.parametrize("hostile", hostile_instances(), ids=lambda one: f"{one.kind}-{one.name}".replace(" ", "-"))
def test_an_instance(door: Door, hostile: HostileInstance) -> None:
    identity = Identity.new()
    file = hostile.make(identity)
    with metered(door.process.pid) as taken:
        answer = door.store(file)
    body = answer.json()
    if hostile.stored:
        assert answer.status_code in {200, 202}, answer.text[:500]
        assert values(body, STORED, UID) == [identity.instance]
        assert values(body, STORED, SHA256) == [sha256(file)], "what is stored is what was sent"
    else:
        assert answer.status_code == 409, answer.text[:500]
        assert values(body, FAILED, FAILURE_REASON)[0] in hostile.refused
        assert "Traceback" not in answer.text
    door.check(taken)


@pytest.mark.parametrize("body", hostile_bodies(), ids=lambda one: one.name)
def test_a_body(door: Door, body: HostileBody) -> None:
    with metered(door.process.pid) as taken:
        status = door.request(body)
    assert status in body.statuses
    door.check(taken)

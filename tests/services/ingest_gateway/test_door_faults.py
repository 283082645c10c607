"""Faults at the DICOM door: what was acknowledged is there, what can't be stored is refused in time, and it goes on."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.certificates import Credential
from libs.dicom import read_header
from libs.events import INSTANCES_STORED
from tests.services.ingest_gateway.door import Pki, door_settings, free_port, register, run_sql, stored_files
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import running_gateway
from tests.services.ingest_gateway.instances import make_instance, new_uid
from tests.services.ingest_gateway.test_faults import service_process
from tests.support.backing import Backing
from tests.support.dimse_tls import Sender, data_set, needed
from tests.support.fault_proxy import FaultProxy, LineFault
from tests.support.tokens import TokenIssuer

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def file_of(folder: Path, **options: Any) -> Path:
    path = folder / f"{new_uid()}.dcm"
    path.write_bytes(make_instance(**options))
    return path


def sender_for(backing: Backing, pki: Pki, tenant: str, port: int | None) -> Sender:
    credential = pki.client(tenant)
    return Sender(pki.ca, port or 0, register(backing, tenant, credential), credential)


async def sent_at_last(sender: Sender, file: Path, seconds: float = 30) -> None:
    """Sends again and again, as a scanner does."""
    until = time.monotonic() + seconds
    while await asyncio.to_thread(sender.send, file) != [0]:
        assert time.monotonic() < until, "it was never stored"
        await asyncio.sleep(0.2)


async def test_a_known_node_stores_while_the_database_is_away(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, pki: Pki, tmp_path: Path
) -> None:
    """A node of a moment ago sends on; of one that can't be looked up nothing is taken, and it may come again."""
    line = FaultProxy(backing.postgres_port)
    url = backing.database_url("ingest_gateway").replace(f":{backing.postgres_port}/", f":{line.port}/")
    settings = door_settings(backing, token_issuer, tmp_path / "spool", pki, database_url=url, lookup_timeout=1)
    known = sender_for(backing, pki, tenant, settings.dimse_port)
    credential = pki.client("late")
    late = Sender(pki.ca, known.port, register(backing, tenant, credential, name="late"), credential)
    files = [file_of(tmp_path) for _ in range(3)]
    with running_gateway(settings, token_issuer):
        assert await asyncio.to_thread(known.send, files[0]) == [0]
        line.inject(LineFault("cut"))
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(known.send, files[1]) == [0]
        assert await asyncio.to_thread(late.rejection) == (2, 3, 1)
        line.mend()
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(late.send, files[2]) == [0]
        run_sql(backing, tenant, ("DELETE FROM nodes WHERE name = 'ct-1' AND tenant_id = $1", tenant))
        await asyncio.sleep(6)  # for as long the answer of before counts after an outage
        assert await asyncio.to_thread(known.rejection) == (1, 1, 7)
    line.close()
    assert len(await stored_files(backing, tenant)) == 3


@pytest.mark.parametrize("place", ["ingest.part_spooled", "ingest.pack_stored"])
async def test_killed_in_the_middle_of_a_store(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, pki: Pki, tmp_path: Path, place: str
) -> None:
    """No acknowledgement, and the scanner's second try stores it, once."""
    settings = door_settings(backing, token_issuer, tmp_path / "spool", pki)
    sender = sender_for(backing, pki, tenant, settings.dimse_port)
    first, file = file_of(tmp_path), file_of(tmp_path)
    async with service_process(settings, token_issuer, LIGHTBOX_CRASH_AT=f"{place}:2") as (_, process):
        assert await asyncio.to_thread(sender.send, first, file) == [0, -1]
        assert await asyncio.wait_for(process.wait(), 20) == -9
    async with service_process(settings, token_issuer) as (gateway, process):
        assert gateway.leftovers() == []
        await sent_at_last(sender, file)
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)
    stored = await stored_files(backing, tenant)
    for path in (first, file):
        (kept,) = stored[read_header(path).sop_instance_uid]
        assert data_set(kept) == data_set(path.read_bytes())
    events = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 2)
    assert {event.data.study_uid for event in events} == {read_header(path).study_uid for path in (first, file)}


async def test_an_association_that_breaks_off_leaves_nothing(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, pki: Pki, tmp_path: Path
) -> None:
    settings = door_settings(backing, token_issuer, tmp_path / "spool", pki)
    line = FaultProxy(settings.dimse_port or 0)
    good = sender_for(backing, pki, tenant, settings.dimse_port)
    broken = Sender(pki.ca, line.port, good.called, good.credential)
    large = file_of(tmp_path, pixels=31 << 20)
    with running_gateway(settings, token_issuer) as gateway:
        sending = asyncio.create_task(asyncio.to_thread(broken.send, large))
        until = time.monotonic() + 30
        while not any(settings.spool_dir.glob("requests/*/part-*.dcm")):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        line.inject(LineFault("cut"))
        assert await sending == [-1]
        while gateway.leftovers():
            assert time.monotonic() < until, "the spool still holds what will never be whole"
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(good.send, file_of(tmp_path)) == [0]
    line.close()
    assert len(await stored_files(backing, tenant)) == 1


async def test_new_certificates_are_used_without_a_restart(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, pki: Pki, tmp_path: Path
) -> None:
    """The door's certificate ends some day, and an authority may have to go; associations that are open stay."""
    own = tmp_path / "own"
    own.mkdir()
    files = {name: own / name for name in ("server.pem", "server.key", "ca.pem")}
    originals = (pki.server.certificate, pki.server.key, pki.ca)
    for source, target in zip(originals, files.values(), strict=True):
        shutil.copy(source, target)
    settings = door_settings(
        backing,
        token_issuer,
        tmp_path / "spool",
        pki,
        dimse_certificate=files["server.pem"],
        dimse_key=files["server.key"],
        dimse_ca=files["ca.pem"],
    )
    sender, file = sender_for(backing, pki, tenant, settings.dimse_port), file_of(tmp_path)
    with running_gateway(settings, token_issuer) as gateway:
        door = gateway.app.state.door
        assert await asyncio.to_thread(sender.send, file) == [0]
        assert not door.take_new_certificates()
        files["server.key"].write_text("no key")
        with pytest.raises(OSError, match="PEM"):
            door.take_new_certificates()
        assert await asyncio.to_thread(sender.send, file) == [0]
        renewed = pki.authority.issue("renewed", own / "renewed", server=True)
        shutil.copy(renewed.certificate, files["server.pem"])
        shutil.copy(renewed.key, files["server.key"])
        assert door.take_new_certificates()
        assert await asyncio.to_thread(shown_by, pki, sender) == "renewed"
        shutil.copy(pki.stranger.credential.certificate, files["ca.pem"])
        assert door.take_new_certificates()
        with pytest.raises(AssertionError):
            await asyncio.to_thread(sender.send, file)


def shown_by(pki: Pki, sender: Sender) -> str:
    """Whom the door's certificate names."""
    with (
        socket.create_connection(("127.0.0.1", sender.port), timeout=20) as plain,
        pki.context(sender.credential).wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        certificate: Any = secured.getpeercert()
        return str(certificate["subject"][0][0][1])


@contextmanager
def plain_line(pki: Pki, port: int, credential: Credential) -> Iterator[int]:
    """A port that takes plain DICOM and passes it on over TLS, by socat, for senders that have no TLS."""
    near = free_port()
    far = f"OPENSSL:127.0.0.1:{port},cert={credential.certificate},key={credential.key},cafile={pki.ca},commonname=door"
    with subprocess.Popen(
        [needed("socat"), f"TCP4-LISTEN:{near},bind=127.0.0.1,reuseaddr,fork", far], stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", near), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield near
        finally:
            process.terminate()


@pytest.mark.parametrize("program", ["gdcmscu", "dcmsend"])
async def test_senders_without_tls_store_through_a_line_that_has_it(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, pki: Pki, tmp_path: Path, program: str
) -> None:
    """Neither gdcmscu nor Debian's dcmsend speaks TLS; a clinic puts a tunnel before such a device."""
    needed("socat")
    needed(program)
    settings = door_settings(backing, token_issuer, tmp_path / "spool", pki)
    sender = sender_for(backing, pki, tenant, settings.dimse_port)
    assert sender.credential is not None
    files = [file_of(tmp_path, number=number, pixels=1 << 18) for number in range(1, 4)]
    with (
        running_gateway(settings, token_issuer),
        plain_line(pki, sender.port, sender.credential) as port,
    ):
        titles = ["--aetitle", "GDCM", "--call"] if program == "gdcmscu" else ["-aet", "DCMSEND", "-aec"]
        command = [program, *titles, sender.called]
        command += ["--store", "127.0.0.1", str(port)] if program == "gdcmscu" else ["127.0.0.1", str(port)]
        process = await asyncio.create_subprocess_exec(
            *command, *map(str, files), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    if program != "gdcmscu":  # Debian's ends by an exception of its own after every store, whoever receives
        assert process.returncode == 0, said
    stored = await stored_files(backing, tenant)
    assert {uid: [data_set(file) for file in kept] for uid, kept in stored.items()} == {
        read_header(file).sop_instance_uid: [data_set(file.read_bytes())] for file in files
    }

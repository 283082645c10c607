"""The DICOM door: if these fail, a clinic without an edge loses images, or sends them into another clinic's archive."""

import asyncio
import hashlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from deploy.local.certificates import Credential
from libs.dicom import read_header
from libs.events import AUDIT_RECORDED, INSTANCES_STORED
from tests.services.ingest_gateway.door import Pki, door_settings, register, run_sql, stored_files
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import Gateway, running_gateway
from tests.services.ingest_gateway.instances import make_instance, new_uid
from tests.support.backing import Backing
from tests.support.dimse_tls import VERIFICATION, Sender, data_set, needed, store
from tests.support.samples import distinct_sample_files
from tests.support.tokens import TokenIssuer

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def door(
    backing: Backing, token_issuer: TokenIssuer, pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    settings = door_settings(backing, token_issuer, tmp_path_factory.mktemp("spool"), pki, dimse_negotiation_timeout=3)
    with running_gateway(settings, token_issuer) as running:
        yield running


@pytest.fixture
def scanner(door: Gateway, backing: Backing, pki: Pki, tenant: str) -> Sender:
    """A sender of the tenant that is let in."""
    credential = pki.client(tenant)
    return Sender(pki.ca, door.settings.dimse_port or 0, register(backing, tenant, credential), credential)


def file_of(folder: Path, **options: Any) -> Path:
    path = folder / f"{new_uid()}.dcm"
    path.write_bytes(make_instance(**options))
    return path


async def refusals(backing: Backing, tenant: str, count: int = 10**6, containing: str = "") -> list[str]:
    """What the audit record says of refusals: as many as are wanted, or what there is after a moment."""
    timeout = 3 if count == 10**6 else 10
    records = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, count, timeout=timeout)
    return [r.data.detail for r in records if r.data.action == "refuse" and containing in r.data.resource]


# storing ----------------------------------------------------------------------------------------------------------


async def test_every_sample_comes_back_with_the_same_data_set(scanner: Sender, backing: Backing, tenant: str) -> None:
    samples = distinct_sample_files()
    statuses = await asyncio.to_thread(scanner.send, *(sample.path for sample in samples))
    assert statuses == [0] * len(samples)
    stored = await stored_files(backing, tenant)
    for sample in samples:
        (file,) = stored[sample.header.sop_instance_uid]
        assert data_set(file) == data_set(sample.path.read_bytes()), sample.name
        assert read_header(file).transfer_syntax == sample.header.transfer_syntax
    events = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, len(samples))
    assert {event.data.source for event in events} == {"node:ct-1"}
    assert sum(event.data.instance_count for event in events) == len(samples)


async def test_dcmtk_stores_and_verifies(scanner: Sender, backing: Backing, tenant: str, tmp_path: Path) -> None:
    needed("storescu")
    files = [file_of(tmp_path, number=number, pixels=1 << 19) for number in range(1, 6)]
    sent = await asyncio.to_thread(scanner.storescu, *files)
    assert sent.returncode == 0, sent.stderr
    stored = await stored_files(backing, tenant)
    for file in files:
        (kept,) = stored[read_header(file).sop_instance_uid]
        assert data_set(kept) == data_set(file.read_bytes())
    echoed = await asyncio.to_thread(scanner.storescu, program="echoscu")
    assert echoed.returncode == 0, echoed.stderr
    records = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 5)
    assert {(r.data.action, r.data.outcome, r.data.actor, r.data.actor_name) for r in records} == {
        ("store", "success", "node:ct-1", "SCANNER")
    }
    assert {r.data.resource for r in records} == {f"C-STORE from SCANNER to {scanner.called}"}
    assert len({r.data.study_uid for r in records}) == 5


async def test_the_same_again_is_a_success_and_other_bytes_are_a_warning(
    scanner: Sender, backing: Backing, door: Gateway, tenant: str, tmp_path: Path
) -> None:
    """CONFORMANCE 20 and 23: B000 tells that this one is kept as a version; the first stays what it was."""
    study, series, uid = new_uid(), new_uid(), new_uid()
    first = file_of(tmp_path, study=study, series=series, uid=uid)
    other = file_of(tmp_path, study=study, series=series, uid=uid, note="changed")
    assert await asyncio.to_thread(scanner.send, first) == [0]
    assert await asyncio.to_thread(scanner.send, first) == [0]
    (kept,) = (await stored_files(backing, tenant))[uid]
    rows = [(statement, tenant) for statement in INDEXED]
    run_sql(backing, tenant, *rows, (INSTANCE, tenant, uid, hashlib.sha256(kept).digest()))
    assert await asyncio.to_thread(scanner.send, first) == [0]
    assert await asyncio.to_thread(scanner.send, other) == [0xB000]
    assert len((await stored_files(backing, tenant))[uid]) == 2
    assert door.leftovers() == []


INDEXED = (
    "INSERT INTO patients (tenant_id, patient_id) VALUES ($1, 'x')",
    """INSERT INTO studies (tenant_id, study_uid, patient_key, attributes, received_at, updated_at)
        SELECT $1, '1', id, '{}', now(), now() FROM patients WHERE tenant_id = $1""",
    """INSERT INTO series (tenant_id, study_key, series_uid, attributes, received_at, updated_at)
        SELECT $1, id, '1', '{}', now(), now() FROM studies WHERE tenant_id = $1""",
    """INSERT INTO packs (tenant_id, key, size, index_offset, index_length, stored)
        VALUES ($1, 'x', 1, 0, 1, now())""",
)
INSTANCE = """INSERT INTO instances (tenant_id, sop_uid, series_key, pack_key, byte_offset, byte_length, sop_class_uid,
        transfer_syntax, sha256) SELECT $1, $2, s.id, p.id, 0, 1, '1', '1', $3 FROM series s, packs p
        WHERE s.tenant_id = $1 AND p.tenant_id = $1"""
"""What indexing would have written, since it does not run here."""


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
async def test_what_can_not_be_taken_is_answered_by_its_status(
    scanner: Sender, backing: Backing, tenant: str, tmp_path: Path
) -> None:
    """CONFORMANCE 23, one by one; and the next good instance on the same association is stored."""
    good = make_instance()
    image = dcmread(BytesIO(good))
    del image.StudyInstanceUID
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)

    def send() -> dict[str, int]:
        with scanner.association() as association:
            return {
                "another instance": store(association, good, announced="1.2.4"),
                "no study": store(association, buffer.getvalue()),
                "not a UID": store(association, good, announced="no-uid"),
                "cut short": store(association, good[:700]),
                "good": store(association, good),
            }

    answers = await asyncio.to_thread(send)
    assert answers == {
        "another instance": 0xA900,
        "no study": 0xA900,
        "not a UID": 0xC000,
        "cut short": 0xC000,
        "good": 0,
    }
    assert list(await stored_files(backing, tenant)) == [read_header(good).sop_instance_uid]


async def test_only_storage_and_verification_are_there(scanner: Sender) -> None:
    """Nobody queries or moves anything through the door."""
    finds = "1.2.840.10008.5.1.4.1.2.2.1"

    def contexts() -> set[str]:
        wanted = [(VERIFICATION, "1.2.840.10008.1.2"), (finds, "1.2.840.10008.1.2")]
        with scanner.association(wanted) as association:
            assert int(association.send_c_echo().Status) == 0
            return {str(context.abstract_syntax) for context in association.accepted_contexts}

    assert await asyncio.to_thread(contexts) == {VERIFICATION}


# who may come in --------------------------------------------------------------------------------------------------


def handshake_error(pki: Pki, port: int, credential: Credential | None, **limits: ssl.TLSVersion) -> str:
    """By which error a TLS client is refused; empty when it is not."""
    context = pki.context(credential)
    for name, value in limits.items():
        setattr(context, name, value)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.settimeout(1.5)
            secured.recv(1)  # with TLS 1.3 the door's opinion of the certificate comes now
    except TimeoutError:
        return ""
    except OSError as error:
        return str(error)
    return "closed"


async def test_certificates_that_do_not_count_end_the_handshake_and_are_on_record(
    door: Gateway, backing: Backing, pki: Pki
) -> None:
    port = door.settings.dimse_port or 0
    stranger = pki.stranger.issue("stranger", pki.folder / "stranger-client")
    as_server = pki.client("as-server", server=True)
    for credential, words in (
        (None, "certificate required|handshake failure"),
        (pki.expired(), "certificate expired"),
        (pki.client("early", begins=timedelta(days=1), ends=timedelta(days=2)), "bad certificate|expired|not valid"),
        (stranger, "unknown ca"),
        (as_server, "unsupported certificate|bad certificate|handshake"),
    ):
        error = await asyncio.to_thread(handshake_error, pki, port, credential)
        assert re.search(words.replace(" ", "[ _]"), error, re.IGNORECASE), (words, error)
    assert await asyncio.to_thread(handshake_error, pki, port, pki.client("fine")) == ""
    details = await refusals(backing, "system", containing="TLS")
    for words in ("did not return a certificate", "has expired", "not yet valid", "issuer", "purpose"):
        assert any(words in detail for detail in details), (words, details)


async def test_nothing_below_tls_1_2_and_no_weak_cipher_suite(door: Gateway, pki: Pki) -> None:
    """PS3.15 section B.12 with RFC 9325 section 4.2."""
    port, credential = door.settings.dimse_port or 0, pki.client("modern")

    def agreed(version: ssl.TLSVersion, ciphers: str = "") -> str:
        context = pki.context(credential)
        context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return str((secured.cipher() or ("",))[0])

    assert await asyncio.to_thread(agreed, ssl.TLSVersion.TLSv1_2) == "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert (await asyncio.to_thread(agreed, ssl.TLSVersion.TLSv1_3)).startswith("TLS_")
    for ciphers in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"):
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(agreed, ssl.TLSVersion.TLSv1_2, ciphers)
    old = openssl_command(pki, port, credential, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    process = await asyncio.create_subprocess_exec(
        *old, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert b"Cipher is (NONE)" in (await process.communicate())[0]


def openssl_command(pki: Pki, port: int, credential: Credential, *arguments: str) -> list[str]:
    return [
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(pki.ca)),
        *("-cert", str(credential.certificate), "-key", str(credential.key), *arguments),
    ]


async def test_another_clinics_certificate_does_not_open_this_clinics_door(
    scanner: Sender, door: Gateway, backing: Backing, pki: Pki, tenant_pair: tuple[str, str], tmp_path: Path
) -> None:
    """Certificate and called AE title count together: neither alone leads anywhere."""
    other = tenant_pair[0]
    theirs = pki.client(other)
    title = register(backing, other, theirs)
    file = file_of(tmp_path)
    for intruder in (
        Sender(pki.ca, scanner.port, scanner.called, theirs),
        Sender(pki.ca, scanner.port, title, scanner.credential),
        Sender(pki.ca, scanner.port, scanner.called, pki.client("nobody")),
        Sender(pki.ca, scanner.port, "ANY-SCP", theirs),
    ):
        assert await asyncio.to_thread(intruder.rejection) == (1, 1, 7)
    assert await asyncio.to_thread(Sender(pki.ca, scanner.port, title, theirs).send, file) == [0]
    assert list(await stored_files(backing, other)) == [read_header(file).sop_instance_uid]
    details = await refusals(backing, "system", containing=f" to {scanner.called}")
    assert len(details) == 2
    assert any(theirs.sha256 in detail for detail in details)
    assert await refusals(backing, other) == []


async def test_one_certificate_in_two_clinics_stores_by_the_title_that_is_called(
    door: Gateway, backing: Backing, pki: Pki, tenant_pair: tuple[str, str], tmp_path: Path
) -> None:
    credential = pki.client("mobile")
    files = [file_of(tmp_path), file_of(tmp_path)]
    for tenant, file in zip(tenant_pair, files, strict=True):
        title = register(backing, tenant, credential, name="van")
        sender = Sender(pki.ca, door.settings.dimse_port or 0, title, credential)
        assert await asyncio.to_thread(sender.send, file) == [0]
    for tenant, file in zip(tenant_pair, files, strict=True):
        assert list(await stored_files(backing, tenant)) == [read_header(file).sop_instance_uid]


async def test_lists_of_a_node_hold(door: Gateway, backing: Backing, pki: Pki, tenant: str, tmp_path: Path) -> None:
    """Calling AE titles and networks; what is refused is on the clinic's own record."""
    port = door.settings.dimse_port or 0
    titles = {}
    for name, options in (
        ("listed", {"calling": ["CT1"], "networks": ["127.0.0.0/8", "2001:db8::/32"]}),
        ("elsewhere", {"networks": ["192.0.2.0/24", "2001:db8::/32"]}),
        ("off", {"enabled": False}),
    ):
        credential = pki.client(f"{tenant}-{name}")
        titles[name] = Sender(pki.ca, port, register(backing, tenant, credential, name=name, **options), credential)
    good = Sender(pki.ca, port, titles["listed"].called, titles["listed"].credential, "CT1")
    assert await asyncio.to_thread(good.send, file_of(tmp_path)) == [0]
    assert await asyncio.to_thread(titles["listed"].rejection) == (1, 1, 3)
    assert await asyncio.to_thread(titles["elsewhere"].rejection) == (1, 1, 1)
    assert await asyncio.to_thread(titles["off"].rejection) == (1, 1, 1)
    details = await refusals(backing, tenant, 4)
    assert [words.split(" (")[0] for words in details] == [
        "the calling AE title is not on the node's list",
        "the address is in none of the node's networks",
        "the node is disabled",
    ]
    run_sql(backing, tenant, ("UPDATE tenants SET state = 'suspended' WHERE id = $1", tenant))
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(good.rejection) == (1, 1, 1)


async def test_who_is_locked_out_stores_no_more_on_an_open_association(
    scanner: Sender, backing: Backing, tenant: str, tmp_path: Path
) -> None:
    first, second = file_of(tmp_path), file_of(tmp_path)

    def send() -> list[int]:
        with scanner.association() as association:
            before = store(association, first.read_bytes())
            run_sql(backing, tenant, ("UPDATE nodes SET enabled = false WHERE tenant_id = $1", tenant))
            time.sleep(0.5)
            return [before, store(association, second.read_bytes())]

    assert await asyncio.to_thread(send) == [0, 0x0124]
    assert list(await stored_files(backing, tenant)) == [read_header(first).sop_instance_uid]


async def test_a_flood_of_refusals_does_not_flood_the_record(
    scanner: Sender, backing: Backing, tenant: str, pki: Pki
) -> None:
    run_sql(backing, tenant, ("UPDATE nodes SET enabled = false WHERE tenant_id = $1", tenant))
    await asyncio.sleep(0.5)
    for _ in range(30):
        assert await asyncio.to_thread(scanner.rejection) == (1, 1, 1)
    assert len(await refusals(backing, tenant)) == 1


# bounds -----------------------------------------------------------------------------------------------------------


async def test_who_says_nothing_keeps_nobody_out(scanner: Sender, door: Gateway, tmp_path: Path) -> None:
    """A hundred connections that never shake hands: the next sender is served, and they are gone in seconds."""
    silent = [socket.create_connection(("127.0.0.1", scanner.port)) for _ in range(100)]
    try:
        begun = time.monotonic()
        assert await asyncio.to_thread(scanner.send, file_of(tmp_path)) == [0]
        assert time.monotonic() - begun < 20
        for connection in silent:
            connection.settimeout(30)
            await asyncio.to_thread(_read_to_the_end, connection)
        assert time.monotonic() - begun < 40
    finally:
        for connection in silent:
            connection.close()


def _read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(64):
        pass


async def test_a_handshake_by_drops_ends(scanner: Sender, tmp_path: Path) -> None:
    """One byte now and then keeps no thread for longer than a handshake may take."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)

    def drip() -> float:
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", scanner.port)) as connection:
            connection.settimeout(0.3)
            for byte in hello:
                try:
                    connection.sendall(bytes([byte]))
                    if connection.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        return time.monotonic() - begun

    assert await asyncio.to_thread(drip) < 15
    assert await asyncio.to_thread(scanner.send, file_of(tmp_path)) == [0]


async def test_renegotiation_is_refused(scanner: Sender, pki: Pki, tmp_path: Path) -> None:
    """A client that asks for ever new handshakes would keep the door at nothing but arithmetic."""
    assert scanner.credential is not None
    said = await asyncio.to_thread(renegotiate, pki, scanner.port, scanner.credential)
    assert "Cipher is ECDHE" in said
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said
    assert await asyncio.to_thread(scanner.send, file_of(tmp_path)) == [0]


def renegotiate(pki: Pki, port: int, credential: Credential) -> str:
    """What OpenSSL's client says when it is told to renegotiate."""
    with subprocess.Popen(
        openssl_command(pki, port, credential, "-tls1_2"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None
        time.sleep(1)  # it takes the letter as a command only when it comes by itself
        process.stdin.write("R\n")
        process.stdin.flush()
        return process.communicate(timeout=30)[0]


async def test_one_clinics_associations_leave_room_for_the_others(
    backing: Backing, token_issuer: TokenIssuer, pki: Pki, tenant_pair: tuple[str, str], tmp_path: Path
) -> None:
    settings = door_settings(
        backing, token_issuer, tmp_path / "spool", pki, dimse_associations_per_tenant=2, dimse_bytes_per_tenant=3 << 20
    )
    senders = []
    for tenant in tenant_pair:
        credential = pki.client(tenant)
        senders.append(Sender(pki.ca, settings.dimse_port or 0, register(backing, tenant, credential), credential))
    greedy, other = senders
    small, large = file_of(tmp_path), file_of(tmp_path, pixels=6 << 20)

    def compare() -> None:
        with greedy.association() as first, greedy.association() as second:
            assert first.is_established
            assert second.is_established
            assert greedy.rejection() == (2, 3, 2)
            assert other.send(small) == [0]
        assert greedy.send(small) == [0]  # there is room again
        assert greedy.send(large, small) == [0xA700, 0]

    with running_gateway(settings, token_issuer) as gateway:
        await asyncio.to_thread(compare)
        assert gateway.leftovers() == []


async def test_a_session_is_not_taken_up_again_once_the_certificate_has_ended(
    backing: Backing, token_issuer: TokenIssuer, pki: Pki, tmp_path: Path
) -> None:
    """A certificate that ends while an association is open opens no further one."""
    settings = door_settings(backing, token_issuer, tmp_path / "spool", pki, dimse_negotiation_timeout=30)
    credential = pki.client("short", ends=timedelta(seconds=5))
    context = pki.context(credential)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def connect(session: ssl.SSLSession | None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", settings.dimse_port or 0), timeout=20)
        return context.wrap_socket(plain, server_hostname="localhost", session=session)

    def resume() -> bytes:
        with connect(None) as first:
            time.sleep(6)
            with connect(first.session) as second:
                assert second.session_reused
                second.settimeout(20)
                return second.recv(1)

    with running_gateway(settings, token_issuer):
        assert await asyncio.to_thread(resume) == b""
    details = await refusals(backing, "system", containing="TLS")
    assert any("since the session began" in words for words in details)

"""Real peers store: DCMTK, gdcm, pynetdicom, Orthanc; with Nagle's algorithm and without, over TCP and TLS."""

import datetime
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from libs.dicom.part10 import read_file_meta
from libs.dimse import Acceptor, Limits
from libs.dimse.handover import HandedOver
from tests.libs.dimse.memory_store import (
    EXPLICIT,
    VERIFICATION,
    MemoryStore,
    RawPeer,
    accepting,
    command_set,
    pdu,
    value,
)
from tests.services.edge_gateway.edge_process import free_port
from tests.services.edge_gateway.instances import CT_IMAGE_STORAGE, write_series

FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def program(name: str, package: str) -> str:
    """The path of a peer's program; pynetdicom brings programs of the same names as DCMTK."""
    own = str(Path(sys.executable).parent)
    places = os.pathsep.join([p for p in os.environ["PATH"].split(os.pathsep) if p != own] + ["/usr/sbin"])
    found = shutil.which(name, path=places)
    if found is None:
        message = f"{name} is not on this machine (Debian: apt-get install {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def run(*command: str, **environment: str) -> None:
    done = subprocess.run(command, capture_output=True, timeout=90, check=False, env={**os.environ, **environment})
    # gdcmscu 3.0.21 ends with an exception after each release, with whatever peer.
    harmless = b"ProtocolStream as nullptr" in done.stderr and command[0].endswith("gdcmscu")
    assert done.returncode == 0 or harmless, (done.stdout + done.stderr).decode(errors="replace")[-2000:]


def data_sets(paths: list[Path]) -> dict[str, bytes]:
    files = {path.stem: path.read_bytes() for path in paths}
    return {uid: file[read_file_meta(file).dataset_offset :] for uid, file in files.items()}


def what_is_in(store: MemoryStore) -> dict[str, bytes]:
    return {command.sop_instance_uid: data for command, data in store.stored}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "in", 8, side=256)


def storescu(port: int, files: list[Path]) -> list[str]:
    return [program("storescu", "dcmtk"), "127.0.0.1", str(port), *map(str, files)]


def dcmsend(port: int, files: list[Path]) -> list[str]:
    return [program("dcmsend", "dcmtk"), "127.0.0.1", str(port), *map(str, files)]


def gdcmscu(port: int, files: list[Path]) -> list[str]:
    return [program("gdcmscu", "libgdcm-tools"), "--store", "127.0.0.1", str(port), *map(str, files)]


def pynetdicom(port: int, files: list[Path]) -> list[str]:
    return [sys.executable, "-m", "pynetdicom", "storescu", "127.0.0.1", str(port), str(files[0].parent)]


@pytest.mark.parametrize("sender", [storescu, dcmsend, gdcmscu, pynetdicom])
@pytest.mark.parametrize("nodelay", ["0", "1"])
def test_what_real_senders_store_arrives_as_it_was(
    files: list[Path], sender: Callable[[int, list[Path]], list[str]], nodelay: str
) -> None:
    """Scanners are built on these toolkits."""
    store = MemoryStore()
    with accepting(store) as acceptor:
        run(*sender(acceptor.port, files), TCP_NODELAY=nodelay)
    assert what_is_in(store) == data_sets(files)


def test_orthanc_stores(files: list[Path], tmp_path: Path) -> None:
    """Many clinics route their images with it."""
    command = program("Orthanc", "orthanc")
    store, http = MemoryStore(), free_port()
    with accepting(store) as acceptor:
        settings = {
            "StorageDirectory": str(tmp_path / "storage"),
            "IndexDirectory": str(tmp_path / "index"),
            "DicomServerEnabled": False,
            "HttpPort": http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"here": ["CALLED", "127.0.0.1", acceptor.port]},
        }
        (tmp_path / "orthanc.json").write_text(json.dumps(settings))
        with running([command, str(tmp_path / "orthanc.json")], http):
            ids = [post(http, "/instances", path.read_bytes())["ID"] for path in files]
            post(http, "/modalities/here/store", json.dumps(ids).encode())
    # Orthanc writes the file anew, with the same elements.
    assert set(what_is_in(store)) == set(data_sets(files))


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def post(port: int, path: str, body: bytes) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=60) as response:
        return json.load(response)


def test_echo_answers() -> None:
    """It is what the installer of a scanner tries first."""
    with accepting(MemoryStore()) as acceptor:
        run(program("echoscu", "dcmtk"), "127.0.0.1", str(acceptor.port))


def test_a_query_is_refused_by_us_and_served_where_it_is_handed_over(files: list[Path]) -> None:
    """A workstation that asks for what is not here must hear so; once it is served, it finds the same port."""

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        match = Dataset()
        match.QueryRetrieveLevel, match.PatientID = "STUDY", f"found {event.identifier.PatientID}"
        yield 0xFF00, match

    def ask(port: int) -> list[str]:
        asking = AE()
        for context in (FIND, VERIFICATION, CT_IMAGE_STORAGE):
            asking.add_requested_context(context, EXPLICIT)
        association = asking.associate("127.0.0.1", port)
        assert association.is_established
        assert association.send_c_echo().Status == 0
        if FIND not in {context.abstract_syntax for context in association.accepted_contexts}:
            assert association.send_c_store(dcmread(files[0])).Status == 0
            association.release()
            return []
        query = Dataset()
        query.QueryRetrieveLevel, query.PatientID = "STUDY", "42"
        answers = [str(match.PatientID) for _, match in association.send_c_find(query, FIND) if match is not None]
        association.release()
        return answers

    entity = AE(ae_title="CALLED")
    entity.add_supported_context(FIND)
    entity.add_supported_context(VERIFICATION)
    other = HandedOver(entity, [(evt.EVT_C_FIND, find)])
    store = MemoryStore()
    with accepting(store) as acceptor:
        assert ask(acceptor.port) == []
    with accepting(store, hand_over=other.take, further=frozenset({FIND})) as acceptor:
        assert ask(acceptor.port) == ["found 42"]
        run(*storescu(acceptor.port, files))
    other.stop()
    assert len(store.stored) == 1 + len(files)


def certificates(folder: Path) -> None:
    """An authority, and a key with a certificate for each side."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    for name in ("authority", "server", "client"):
        key = authority_key if name == "authority" else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(private)


def server_side(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_over_tls_the_certificate_of_the_peer_is_known(files: list[Path], tmp_path: Path) -> None:
    """Who sends over the internet is known by a certificate, or does not get in."""
    certificates(tmp_path)
    store = MemoryStore()
    limits = Limits(negotiation_seconds=3, stop_seconds=0.2)
    with accepting(store, limits, tls=server_side(tmp_path)) as acceptor:
        silent = [RawPeer(acceptor.port) for _ in range(12)]
        key, certificate = str(tmp_path / "client.key"), str(tmp_path / "client.pem")
        tls = ["+tls", key, certificate, "+cf", str(tmp_path / "authority.pem"), "-ic"]
        run(*storescu(acceptor.port, files)[:1], *tls, *storescu(acceptor.port, files)[1:])
        anonymous = [*storescu(acceptor.port, files)[:1], "+tla", *storescu(acceptor.port, files)[1:]]
        assert subprocess.run(anonymous, capture_output=True, timeout=60, check=False).returncode != 0
        assert subprocess.run(storescu(acceptor.port, files), capture_output=True, check=False).returncode != 0
        for peer in silent:
            assert peer.hear() == (0, b"")
            peer.socket.close()
    assert what_is_in(store) == data_sets(files)
    expected = ssl.PEM_cert_to_DER_cert((tmp_path / "client.pem").read_text())
    assert {peer.certificate for peer in store.peers} == {expected}


def test_many_associations_at_once(files: list[Path]) -> None:
    """A busy morning: every scanner sends at the same time."""
    store = MemoryStore()
    acceptor: Acceptor
    with accepting(store) as acceptor:
        peers = [RawPeer(acceptor.port) for _ in range(40)]
        for number, peer in enumerate(peers):
            peer.associate()
            peer.say(pdu(4, value(1, 3, command_set(1, data_set=True, uid=f"1.2.{number}"))))
        for number, peer in enumerate(peers):
            peer.say(pdu(4, value(1, 2, str(number).encode() * 1000)))
        assert all(peer.status() == 0 for peer in peers)
        for peer in peers:
            peer.socket.close()
    assert what_is_in(store) == {f"1.2.{n}": str(n).encode() * 1000 for n in range(40)}

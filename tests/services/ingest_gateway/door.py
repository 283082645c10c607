"""The DICOM door for tests: a gateway that has one, certificates, nodes, and senders over TLS."""

import asyncio
import io
import socket
import ssl
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from deploy.local.certificates import Authority, Credential
from libs.dicom import DicomError, read_header
from libs.dicom.part10 import read_file_meta
from libs.objects import ObjectStore
from services.ingest_gateway.settings import Settings
from tests.services.ingest_gateway.gateway import settings_for
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
_config.LOG_HANDLER_LEVEL = "none"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pki:
    """An authority that the door trusts, one that it does not, and the door's certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ca", "Test authority")
        self.stranger = Authority(folder / "stranger", "Somebody else's authority")
        self.ca = self.authority.credential.certificate
        self.server = self.authority.issue("door", folder / "server", server=True)

    def client(self, name: str, **options: Any) -> Credential:
        """A client certificate that the door trusts."""
        return self.authority.issue(name, self.folder / name, **options)

    def expired(self) -> Credential:
        return self.client("expired", begins=-timedelta(days=3), ends=-timedelta(days=1))

    def context(self, credential: Credential | None) -> ssl.SSLContext:
        """How a client with this certificate speaks TLS."""
        context = ssl.create_default_context(cafile=self.ca)
        if credential is not None:
            context.load_cert_chain(credential.certificate, credential.key)
        return context


def door_settings(backing: Backing, issuer: TokenIssuer, spool: Path, pki: Pki, **overrides: Any) -> Settings:
    """Settings of a gateway with a door."""
    values = {
        "dimse_port": free_port(),
        "dimse_certificate": pki.server.certificate,
        "dimse_key": pki.server.key,
        "dimse_ca": pki.ca,
        "dimse_node_seconds": 0.2,
    }
    return settings_for(backing, issuer, spool, **{**values, **overrides})


def run_sql(backing: Backing, tenant: str, *statements: tuple[Any, ...]) -> None:
    """Runs statements as the owner of the tables, within a tenant."""

    async def run() -> None:
        connection = await asyncpg.connect(backing.database_url("owner").replace("+asyncpg", ""))
        try:
            async with connection.transaction():
                await connection.execute("SELECT set_config('lightbox.tenant', $1, true)", tenant)
                for statement, *arguments in statements:
                    await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as apart:
        apart.submit(asyncio.run, run()).result()


@dataclass(frozen=True)
class Sender:
    """Somebody who sends to the door.

    Attributes:
        pki: the authorities.
        port: of the door.
        called: what it calls the door.
        credential: what it shows; none, for one that shows nothing.
        calling: what it calls itself.
    """

    pki: Pki
    port: int
    called: str
    credential: Credential | None
    calling: str = "SCANNER"

    @contextmanager
    def association(self, contexts: Sequence[tuple[str, str]] = ((CT, EXPLICIT),)) -> Iterator[Association]:
        """An association by pynetdicom, made or refused."""
        entity = AE(ae_title=self.calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
        for sop_class, syntax in dict.fromkeys(contexts):
            entity.add_requested_context(sop_class, syntax)
        made = entity.associate(
            "127.0.0.1",
            self.port,
            ae_title=self.called,
            tls_args=(self.pki.context(self.credential), "localhost"),
        )
        try:
            yield made
        finally:
            if made.is_established:
                made.release()

    def send(self, *paths: Path) -> list[int]:
        """The statuses of a C-STORE of each file, byte for byte; -1 where there was no answer."""
        files = [path.read_bytes() for path in paths]
        with self.association([identity_of(file)[:2] for file in files]) as association:
            assert association.is_established
            return [store(association, file) for file in files]

    def rejection(self) -> tuple[int, int, int]:
        """Result, source and reason by which an association is refused (PS3.8 table 9-21)."""
        with self.association() as association:
            assert association.is_rejected, "it was not rejected"
            answer: Any = association.acceptor.primitive
            return answer.result, answer.result_source, answer.diagnostic

    def storescu(self, *arguments: str | Path, program: str = "storescu") -> subprocess.CompletedProcess[str]:
        """DCMTK's sender."""
        assert self.credential is not None
        tls = ("+tls", self.credential.key, self.credential.certificate, "+cf", self.pki.ca)
        titles = ("-aet", self.calling, "-aec", self.called)
        return subprocess.run(
            [program, "-v", *tls, *titles, "127.0.0.1", str(self.port), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def identity_of(file: bytes) -> tuple[str, str, str]:
    """SOP class, transfer syntax and SOP Instance UID: those of the data set, as a sender reads them."""
    try:
        header = read_header(file)
    except DicomError:
        meta = read_file_meta(file)
        return meta.sop_class_uid, meta.transfer_syntax, meta.sop_instance_uid
    return header.sop_class_uid, header.transfer_syntax, header.sop_instance_uid


def store(association: Association, file: bytes, *, announced: str = "") -> int:
    """The status of a C-STORE of a Part 10 file's data set as it is; -1 when there is no answer.

    Arguments:
        association: with a presentation context for it.
        file: the file.
        announced: the SOP Instance UID of the command, where it is to be another than the file's.
    """
    sop_class, syntax, uid = identity_of(file)
    context = next(
        one
        for one in association.accepted_contexts
        if (one.abstract_syntax, one.transfer_syntax[0]) == (sop_class, syntax)
    )
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = UID(sop_class)
    request._AffectedSOPInstanceUID = UID(announced or uid)
    request.Priority = 2
    request.DataSet = io.BytesIO(data_set(file))
    association._reactor_checkpoint.clear()  # its own thread would take the answer
    while not association._is_paused:
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(request, context.context_id or 0)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return int(getattr(answer, "Status", None) or 0) if answer is not None else -1


def register(
    backing: Backing,
    tenant: str,
    credential: Credential,
    *,
    title: str = "",
    name: str = "ct-1",
    calling: Sequence[str] = (),
    networks: Sequence[str] = (),
    enabled: bool = True,
) -> str:
    """Lets a sender in, as the identity service does, and gives its called AE title."""
    title = title or tenant.upper()[:16]
    run_sql(
        backing,
        tenant,
        ("INSERT INTO called_ae_titles VALUES ($1, $2) ON CONFLICT DO NOTHING", title, tenant),
        (
            "INSERT INTO nodes VALUES ($1, $2, $3, $4, $5, $6)",
            tenant,
            name,
            title,
            list(calling),
            list(networks),
            enabled,
        ),
        (
            "INSERT INTO node_certificates VALUES ($1, $2, $3, $4)",
            tenant,
            title,
            bytes.fromhex(credential.sha256),
            name,
        ),
    )
    return title


async def stored_files(backing: Backing, tenant: str) -> dict[str, list[bytes]]:
    """SOP Instance UID → the files in the tenant's packs, as any unzip tool reads them."""
    objects = ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")
    found: dict[str, list[bytes]] = {}
    try:
        for key in [entry.key async for entry in objects.list(tenant, "packs/")]:
            with zipfile.ZipFile(io.BytesIO(await objects.get(tenant, key))) as pack:
                for name in pack.namelist():
                    if name.endswith(".dcm"):
                        found.setdefault(name.removesuffix(".dcm"), []).append(pack.read(name))
    finally:
        await objects.close()
    return found


def data_set(file: bytes) -> bytes:
    """What of a Part 10 file a C-STORE carries."""
    return file[read_file_meta(file).dataset_offset :]

"""The DICOM door for tests: a gateway that has one, certificates, nodes, and what was stored."""

import asyncio
import io
import socket
import ssl
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from deploy.local.certificates import Authority, Credential
from libs.objects import ObjectStore
from services.ingest_gateway.settings import Settings
from tests.services.ingest_gateway.gateway import settings_for
from tests.support.backing import Backing
from tests.support.dimse_tls import client_context
from tests.support.tokens import TokenIssuer


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
        return client_context(self.ca, credential)


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

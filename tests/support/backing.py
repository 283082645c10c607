"""PostgreSQL, S3 and Kafka for tests: the real servers, started once per run in a folder that is thrown away.

To keep them between runs while developing::

    python -m tests.support.backing FOLDER          # starts them and stays
    LIGHTBOX_TEST_BACKING=FOLDER pytest …           # uses them
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import boto3
import pytest

from deploy.local.credentials import load_credentials
from deploy.local.home import Home, write_json
from deploy.local.postgres import server_user
from deploy.local.provision import OWNER, database_url
from deploy.local.servers import Servers
from libs.tenancy import bucket_name

BUCKET_PREFIX: Final = "lightbox"


@dataclass(frozen=True)
class Backing:
    """The addresses and keys of running servers.

    Attributes:
        folder: their data folder.
        postgres_port: port of PostgreSQL on 127.0.0.1.
        s3_endpoint: URL of the object store.
        kafka_bootstrap: ``host:port`` of the broker; all topics exist.
    """

    folder: str
    postgres_port: int
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    kafka_bootstrap: str

    def database_url(self, role: str) -> str:
        """The URL of the migrated database for ``owner`` or for a service, such as ``indexing``."""
        return database_url(load_credentials(Home(Path(self.folder))), self.postgres_port, role)

    def create_tenant(self, tenant: str, name: str = "") -> str:
        """Makes a tenant's row and bucket, and returns its identifier."""
        with ThreadPoolExecutor(1) as apart:  # the test may have an event loop of its own
            apart.submit(asyncio.run, self._insert_tenant(tenant, name or tenant.title())).result()
        client: Any = boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.s3_access_key,
            aws_secret_access_key=self.s3_secret_key,
        )
        client.create_bucket(Bucket=bucket_name(BUCKET_PREFIX, tenant))
        client.close()
        return tenant

    async def _insert_tenant(self, tenant: str, name: str) -> None:
        password = load_credentials(Home(Path(self.folder))).database_owner
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.postgres_port, user=OWNER, password=password, database="lightbox"
        )
        try:
            await connection.execute("INSERT INTO tenants (id, name) VALUES ($1, $2)", tenant, name)
        finally:
            await connection.close()


def start_backing(folder: Path) -> tuple[Servers, Backing]:
    """Starts the servers with their data in the folder; they end with this process."""
    servers = Servers(Home(folder))
    servers.start()
    return servers, Backing(
        folder=str(folder),
        postgres_port=servers.addresses.postgres_port,
        s3_endpoint=servers.addresses.s3_endpoint,
        s3_access_key=servers.credentials.s3_access_key,
        s3_secret_key=servers.credentials.s3_secret_key,
        kafka_bootstrap=servers.addresses.kafka_bootstrap,
    )


@pytest.fixture(scope="session")
def backing() -> Iterator[Backing]:
    """The servers of this run, or those that LIGHTBOX_TEST_BACKING names."""
    named = os.environ.get("LIGHTBOX_TEST_BACKING", "")
    if named:
        found = Path(named) / "backing.json"
        if not found.exists():
            pytest.fail(f"no servers run in {named}; start them: python -m tests.support.backing {named}")
        yield Backing(**json.loads(found.read_bytes()))
        return
    with tempfile.TemporaryDirectory(prefix="lightbox-test-", ignore_cleanup_errors=True) as folder:
        if server_user():
            Path(folder).chmod(0o711)
        servers, started = start_backing(Path(folder))
        try:
            yield started
        finally:
            servers.stop()


def new_tenant_id() -> str:
    """A tenant identifier that no other test uses."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture
def tenant(backing: Backing) -> str:
    """A fresh tenant of this test, with its bucket."""
    return backing.create_tenant(new_tenant_id())


@pytest.fixture
def tenant_pair(backing: Backing) -> tuple[str, str]:
    """Two fresh tenants, each with its bucket."""
    return backing.create_tenant(new_tenant_id()), backing.create_tenant(new_tenant_id())


def main() -> None:
    """Starts servers in the folder that is given, and keeps them until SIGINT or SIGTERM."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.support.backing FOLDER")
    folder = Path(sys.argv[1]).resolve()
    servers, started = start_backing(folder)
    write_json(folder / "backing.json", asdict(started))
    sys.stdout.write(f"ready: LIGHTBOX_TEST_BACKING={folder}\n")
    sys.stdout.flush()
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        (folder / "backing.json").unlink(missing_ok=True)
        servers.stop()


if __name__ == "__main__":
    main()

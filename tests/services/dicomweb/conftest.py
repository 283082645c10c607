"""The service on a port of its own, over real servers."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import uvicorn
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session

from libs.dicom import read_header
from services.dicomweb.main import create_app
from services.dicomweb.settings import Settings
from tests.services.dicomweb.archive import Archive, Stored, readable_samples
from tests.support.backing import Backing, new_tenant_id
from tests.support.tokens import TokenIssuer, token_issuer

__all__ = ["token_issuer"]
READ = ("dicom:read",)
NOBODY = "t-nobody"
"""A tenant that has nothing."""


@dataclass(frozen=True)
class Service:
    """The running service."""

    url: str
    spool: Path
    tokens: TokenIssuer

    def http(self, tenant: str, **headers: str) -> httpx.Client:
        """A client of a tenant's user."""
        found = {"Accept": "*/*", **self.tokens.header_for(tenant, READ, "user:anna", name="Anna"), **headers}
        return httpx.Client(base_url=f"{self.url}/dicom-web", headers=found, timeout=60, trust_env=False, verify=False)

    def dicomweb(self, tenant: str) -> DICOMwebClient:
        """A client that other people wrote."""
        session = create_session()
        session.trust_env = False
        headers = self.tokens.header_for(tenant, READ)
        return DICOMwebClient(f"{self.url}/dicom-web", session=session, headers=headers)


@dataclass(frozen=True)
class Sample:
    """A sample file in a tenant."""

    name: str
    tenant: str
    stored: Stored


@pytest.fixture(scope="session")
def settings(backing: Backing, token_issuer: TokenIssuer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        database_url=backing.database_url("dicomweb"),
        kafka_bootstrap=backing.kafka_bootstrap,
        s3_endpoint=backing.s3_endpoint,
        s3_access_key=backing.s3_access_key,
        s3_secret_key=backing.s3_secret_key,
        jwks_url=token_issuer.jwks_url,
        issuer=token_issuer.issuer,
        public_url="https://pacs.example",
        spool_dir=tmp_path_factory.mktemp("dicomweb"),
        worker_processes=1,
    )


@pytest.fixture(scope="session")
def service(settings: Settings, token_issuer: TokenIssuer) -> Iterator[Service]:
    with serving(settings) as url:
        yield Service(url, settings.spool_dir, token_issuer)


class serving:  # noqa: N801
    """Serves an application in a thread while the block lasts."""

    def __init__(self, settings: Settings) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(settings), log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._socket]))

    def __enter__(self) -> str:
        self._thread.start()
        url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        with httpx.Client(trust_env=False) as client:
            for _ in range(100):
                try:
                    client.get(f"{url}/health/live", timeout=1)
                    return url
                except httpx.HTTPError:
                    threading.Event().wait(0.1)
        raise AssertionError("the service did not start")

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        self._socket.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def archive(backing: Backing) -> AsyncIterator[Archive]:
    found = Archive(backing)
    yield found
    await found.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def samples(backing: Backing, archive: Archive) -> list[Sample]:
    """Every sample file, stored. Those that share a SOP Instance UID are in different tenants."""
    layers: list[dict[str, tuple[str, bytes]]] = []
    for name, data in readable_samples():
        uid = read_header(data).sop_instance_uid
        layer = next((found for found in layers if uid not in found), None)
        if layer is None:
            layers.append(layer := {})
        layer[uid] = (name, data)
    found: list[Sample] = []
    for layer in layers:
        tenant = await asyncio.to_thread(backing.create_tenant, new_tenant_id())
        names = {uid: name for uid, (name, _) in layer.items()}
        stored = await archive.store(tenant, [data for _, data in layer.values()])
        found += [Sample(names[s.header.sop_instance_uid], tenant, s) for s in stored]
    return found


def named(samples: list[Sample], name: str) -> Sample:
    """The sample with this file name."""
    return next(sample for sample in samples if sample.name == name)

"""Our services and the edge gateways of this machine as parts, with the environment each one reads."""

import json
import logging
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.credentials import Credentials
from deploy.local.home import Home, read_json, write_json
from deploy.local.part import Part
from deploy.local.ports import remembered_ports
from deploy.local.probes import http_ok
from deploy.local.provision import database_url
from deploy.local.servers import addresses
from services.__main__ import names

EDGE_GATEWAY: Final = "edge_gateway"
DICOM_DOOR: Final = "ingest_gateway.dimse"
"""The name under which the port of the cloud's own DICOM door is remembered."""
_MEMORY: Final = {"MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
_log = logging.getLogger(__name__)


def service_names() -> tuple[str, ...]:
    """The services that run in the cloud and exist in this checkout."""
    return tuple(name for name in names() if name != EDGE_GATEWAY)


def public_url(ports: dict[str, int]) -> str:
    """The address of the front door."""
    return f"http://127.0.0.1:{ports['caddy']}"


def service_environment(name: str, home: Home, credentials: Credentials, ports: dict[str, int]) -> dict[str, str]:
    """The settings of a service, as it reads them from its environment.

    Arguments:
        name: the service's folder name.
        home: the data folder.
        credentials: the secrets of the stack.
        ports: the remembered ports.
    """
    where = addresses(ports)
    values = {
        "HOST": "127.0.0.1",
        "PORT": str(ports[name]),
        "KAFKA_BOOTSTRAP": where.kafka_bootstrap,
        "S3_ENDPOINT": where.s3_endpoint,
        "S3_REGION": "us-east-1",
        "S3_ACCESS_KEY": credentials.s3_access_key,
        "S3_SECRET_KEY": credentials.s3_secret_key,
        "BUCKET_PREFIX": "lightbox",
        "JWKS_URL": f"http://127.0.0.1:{ports['identity']}/.well-known/jwks.json",
        "ISSUER": "lightbox",
        "PUBLIC_URL": public_url(ports),
        "SPOOL_DIR": str(home.data(name) / "spool"),
    }
    if name in credentials.database_roles:
        values["DATABASE_URL"] = database_url(credentials, where.postgres_port, name)
    if name == "identity":
        values["BOOTSTRAP_SECRET"] = credentials.identity_bootstrap_secret
        values["KEY_ENCRYPTION_KEY"] = credentials.key_encryption_key
    if name == "ingest_gateway" and DICOM_DOOR in ports:
        values |= _door(home, ports[DICOM_DOOR])
    return {f"LIGHTBOX_{name.upper()}_{key}": value for key, value in values.items()}


def _door(home: Home, port: int) -> dict[str, str]:
    """The settings of the cloud's own DICOM door."""
    from deploy.local.certificates import DimseTls  # slow to import, and most commands need none of it

    tls = DimseTls.of(home)
    return {
        "DIMSE_HOST": "127.0.0.1",
        "DIMSE_PORT": str(port),
        "DIMSE_CERTIFICATE": str(tls.server.certificate),
        "DIMSE_KEY": str(tls.server.key),
        "DIMSE_CA": str(tls.authority),
    }


def _prepare(name: str, home: Home) -> None:
    """Makes what a service needs before it starts: its spool, and the certificates of the DICOM door."""
    (home.data(name) / "spool").mkdir(mode=0o700, parents=True, exist_ok=True)
    if name == "ingest_gateway":
        from deploy.local.certificates import DimseTls

        DimseTls.of(home).prepare()


def service_part(name: str, home: Home, credentials: Credentials, ports: dict[str, int]) -> Part:
    """One of our services.

    Arguments:
        name: the service's folder name.
        home: the data folder.
        credentials: the secrets of the stack.
        ports: the remembered ports.
    """
    return Part(
        name=name,
        command=(sys.executable, "-m", "services", name),
        port=ports[name],
        ready=partial(http_ok, ports[name], "/health/ready"),
        live=partial(http_ok, ports[name], "/health/live"),
        environment={**service_environment(name, home, credentials, ports), **_MEMORY},
        prepare=partial(_prepare, name, home),
        stop_seconds=15,
        dicom_port=ports.get(DICOM_DOOR, 0) if name == "ingest_gateway" else 0,
    )


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@dataclass(frozen=True)
class Edge:
    """An edge gateway that runs on this machine, as one file in the folder ``edges`` says.

    Attributes:
        tenant: whose images it sends.
        name: its name within the tenant.
        client_id: its OAuth2 client, ``TENANT.NAME``.
        client_secret: the client's secret.
        ae_title: the AE title that scanners call.
        dimse_port: where scanners send to on 127.0.0.1.
        port: where it answers about its health on 127.0.0.1.
        environment: further settings, by the names of their environment variables.
    """

    tenant: str
    name: str
    client_id: str
    client_secret: str
    ae_title: str
    dimse_port: int
    port: int
    environment: dict[str, str]

    @property
    def part_name(self) -> str:
        """Its name as a part: ``edge-TENANT`` for the edge called ``edge``, ``edge-TENANT-NAME`` for others."""
        return f"edge-{self.tenant}" if self.name == "edge" else f"edge-{self.tenant}-{self.name}"

    def file(self, home: Home) -> Path:
        """Where it is written down."""
        return home.edges_folder / f"{self.tenant}-{self.name}.json"


def add_edge(
    home: Home,
    tenant: str,
    name: str,
    *,
    client_id: str,
    client_secret: str,
    ae_title: str,
    dimse_port: int | None = None,
    environment: dict[str, str] | None = None,
) -> Edge:
    """Writes an edge down; a running supervisor starts it within a second.

    Arguments:
        home: the data folder.
        tenant: whose images it sends.
        name: its name within the tenant.
        client_id: its OAuth2 client, ``TENANT.NAME``.
        client_secret: the client's secret.
        ae_title: the AE title that scanners call.
        dimse_port: where scanners send to; a free port by default.
        environment: further settings, by the names of their environment variables.
    """
    keys = (f"edge.{tenant}.{name}.dimse", f"edge.{tenant}.{name}.http")
    ports = remembered_ports(home, keys)
    edge = Edge(
        tenant=tenant,
        name=name,
        client_id=client_id,
        client_secret=client_secret,
        ae_title=ae_title,
        dimse_port=dimse_port or ports[keys[0]],
        port=ports[keys[1]],
        environment=environment or {},
    )
    write_json(edge.file(home), vars(edge), durable=True)
    return edge


def remove_edge(home: Home, tenant: str, name: str) -> bool:
    """Forgets an edge, which the supervisor then stops; its spool stays. False when there was none."""
    file = home.edges_folder / f"{tenant}-{name}.json"
    existed = file.exists()
    file.unlink(missing_ok=True)
    return existed


def known_edges(home: Home) -> list[Edge]:
    """All edges of this machine; a file that can't be read is left out and named in the log."""
    found: list[Edge] = []
    for file in sorted(home.edges_folder.glob("*.json")):
        try:
            found.append(Edge(**read_json(file)))
        except (TypeError, ValueError, OSError, json.JSONDecodeError) as error:
            _log.warning("edge file %s is left out: %s", file.name, error)
    return found


def edge_part(edge: Edge, home: Home, ports: dict[str, int]) -> Part:
    """The edge gateway as a part.

    Arguments:
        edge: which.
        home: the data folder.
        ports: the remembered ports.
    """
    values = {
        "HOST": "127.0.0.1",
        "PORT": str(edge.port),
        "SPOOL_DIR": str(home.data(edge.part_name) / "spool"),
        "AE_TITLE": edge.ae_title,
        "DIMSE_HOST": "127.0.0.1",
        "DIMSE_PORT": str(edge.dimse_port),
        "CLOUD_URL": public_url(ports),
        "CLIENT_ID": edge.client_id,
        "CLIENT_SECRET": edge.client_secret,
    }
    return Part(
        name=edge.part_name,
        command=(sys.executable, "-m", "services", EDGE_GATEWAY),
        port=edge.dimse_port,
        ready=partial(http_ok, edge.port, "/health/ready"),
        live=partial(http_ok, edge.port, "/health/live"),
        environment={
            **{f"LIGHTBOX_EDGE_GATEWAY_{key}": value for key, value in values.items()},
            **edge.environment,
            **_MEMORY,
        },
        prepare=partial(_make_private, home.data(edge.part_name) / "spool"),
        stop_seconds=20,
    )

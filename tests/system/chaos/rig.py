"""What chaos needs of a running stack: edges of its own, lines that can fail, disks that can fill, crash points."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from cli.edges import spool_status
from cli.identity_api import IdentityApi, IdentityError
from deploy.local.certificates import Credential, DimseTls
from deploy.local.control import read_status
from deploy.local.credentials import load_credentials
from deploy.local.home import Home, read_json, write_json
from deploy.local.provision import database_url
from deploy.local.servers import addresses
from deploy.local.service_parts import DICOM_DOOR, Edge, add_edge, remove_edge
from libs.crash import VARIABLE
from tests.support.fault_proxy import FaultProxy
from tests.support.system import run_lightbox

TENANTS: Final = ("north", "south")
EDGE: Final = "chaos"
SERVICES: Final = ("ingest_gateway", "indexing", "audit", "dicomweb", "identity")
"""Those that are told of crash points and lines; they are started anew for it, and once more at the end."""
_DISK: Final = 32 << 20
_TOKEN_SECONDS: Final = 240


def called(tenant: str) -> str:
    """What is called, at the tenant's edge and at the DICOM door."""
    return f"CHAOS-{tenant.upper()}"


class Disk:
    """A disk that can be full: a small file system where we may mount one, else a bound on the size of files.

    Arguments:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=700", "tmpfs", str(folder)]
        self.mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Takes all the room there is."""
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            for piece in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        file.write(bytes(piece))

    def free(self) -> None:
        """Gives the room back."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Takes the file system away, with all that is on it."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
            self.mounted = False


class Rig:
    """A running stack with the two tenants, made ready to fail.

    Arguments:
        home: its data folder.
        clients: id and secret of a client that may read and write, for each tenant.

    Attributes:
        url: the front door.
        edges: the edge of each tenant.
        tls: what each tenant's node shows at the DICOM door, and the authority that it trusts.
        lines: by name: ``scanner-TENANT`` to the edge, ``uplink`` from the edges to the front door, ``web`` from
            senders to the front door, ``tls`` from nodes to the DICOM door; and from a service to a server:
            ``ingest-s3``, ``indexing-s3``, ``indexing-postgres``.
        disks: the spools, by part.
    """

    def __init__(self, home: Home, clients: dict[str, tuple[str, str]]) -> None:
        self.home = home
        self.url = read_status(home, memory=False).public_url
        self.credentials = load_credentials(home)
        ports = read_json(home.ports_file)
        where = addresses(ports)
        self.postgres_port = where.postgres_port
        self.s3_endpoint = where.s3_endpoint
        self.edges: dict[str, Edge] = {}
        self.tls: dict[str, tuple[Credential, Path]] = {}
        self.disks: dict[str, Disk] = {}
        self._clients = clients
        self._tokens: dict[str, tuple[str, float]] = {}
        self.lines = {
            "uplink": FaultProxy(ports["caddy"]),
            "web": FaultProxy(ports["caddy"]),
            "tls": FaultProxy(ports[DICOM_DOOR]),
            "ingest-s3": FaultProxy(ports["seaweedfs.s3.port"]),
            "indexing-s3": FaultProxy(ports["seaweedfs.s3.port"]),
            "indexing-postgres": FaultProxy(where.postgres_port),
        }

    def set_up(self) -> None:
        """Sets the services up, and adds the edges."""
        folder = self.home.folder / "chaos"
        for part in ("ingest_gateway", *(f"edge-{tenant}-{EDGE}" for tenant in TENANTS)):
            self.disks[part] = Disk(folder / f"disk-{part}")
        write_json(self.home.settings_file, {name: self._settings_of(name) for name in SERVICES})
        self._restart(SERVICES)
        with IdentityApi.of_stack(self.home) as identity:
            for tenant in TENANTS:
                client, secret = identity.create_client(tenant, f"edge-{EDGE}", ["dicom:write"])
                self.edges[tenant] = edge = add_edge(
                    self.home,
                    tenant,
                    EDGE,
                    client_id=client,
                    client_secret=secret,
                    ae_title=called(tenant),
                    environment=self._edge_environment(f"edge-{tenant}-{EDGE}"),
                )
                self.lines[f"scanner-{tenant}"] = FaultProxy(edge.dimse_port)
        for tenant in TENANTS:
            self._add_node(tenant)
        self.await_well(parts=len(TENANTS))

    def tear_down(self) -> None:
        """Leaves the stack as it was, but for what was stored."""
        for tenant in self.edges:
            remove_edge(self.home, tenant, EDGE)
            with suppress(IdentityError), IdentityApi.of_stack(self.home) as identity:
                identity.delete_client(tenant, f"edge-{EDGE}")
        for tenant in self.tls:
            self._node("remove", tenant, EDGE)
        self.home.settings_file.unlink(missing_ok=True)
        self._restart(SERVICES)
        for line in self.lines.values():
            line.close()
        for disk in self.disks.values():
            disk.unmount()
        shutil.rmtree(self.home.folder / "chaos", ignore_errors=True)

    def _add_node(self, tenant: str) -> None:
        authorities = DimseTls.of(self.home)
        shown = authorities.issue(f"{EDGE}-{tenant}", 2)
        self._node("remove", tenant, EDGE)
        made = self._node("add", tenant, EDGE, "--called", called(tenant), "--certificate", str(shown.certificate))
        if made.returncode:
            raise RuntimeError(made.stdout + made.stderr)
        self.tls[tenant] = shown, authorities.authority

    def _node(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_lightbox(self.home.folder, "node", *arguments)

    def crash_file(self, part: str) -> Path:
        """The file that arms a part's crash point."""
        return self.home.folder / "chaos" / f"{part}.crash"

    @contextmanager
    def noting_passages(self) -> Iterator[Callable[[], set[str]]]:
        """Has all parts note which crash points they pass; the function that is given says which until now."""
        files = [self.crash_file(part) for part in (*SERVICES, *(edge.part_name for edge in self.edges.values()))]
        notes = [Path(f"{file}.passed") for file in files]
        for file in files:
            file.write_text("note")
        try:
            yield lambda: {name for note in notes if note.exists() for name in note.read_text().split()}
        finally:
            for file in (*files, *notes):
                file.unlink(missing_ok=True)

    def token(self, tenant: str) -> str:
        """An access token of the tenant's client."""
        token, until = self._tokens.get(tenant, ("", 0.0))
        if time.monotonic() > until:
            try:
                with IdentityApi.of_stack(self.home) as identity:
                    token = identity.token(*self._clients[tenant])
            except IdentityError as error:
                raise OSError(str(error)) from error
            self._tokens[tenant] = token, time.monotonic() + _TOKEN_SECONDS
        return token

    def pid(self, part: str) -> int:
        """The process of a part.

        Raises:
            ProcessLookupError: it has none at the moment.
        """
        found = read_json(self.home.state_file).get("parts", {}).get(part, {}).get("pid")
        if not found:
            raise ProcessLookupError(part)
        return int(found)

    def tree(self, part: str) -> list[psutil.Process]:
        """The part's processes, the first one first; none when it does not run."""
        try:
            root = psutil.Process(self.pid(part))
            return [root, *root.children(recursive=True)]
        except (ProcessLookupError, psutil.NoSuchProcess):
            return []

    def signal(self, part: str, number: signal.Signals) -> None:
        """Sends a signal to all processes of a part."""
        for process in self.tree(part):
            with suppress(psutil.Error):
                process.send_signal(number)

    def bound_files(self, part: str, size: int) -> None:
        """Bounds the size of the files that a part may write, as a full disk would; -1 for no bound."""
        for process in self.tree(part):
            with suppress(psutil.Error):
                # Only a process of the same user may do it; the database runs under one of its own.
                subprocess.run(
                    ["prlimit", f"--pid={process.pid}", f"--fsize={size if size >= 0 else 'unlimited'}:"],
                    user=process.uids().real,
                    group=process.gids().real,
                    extra_groups=[],
                    capture_output=True,
                    check=False,
                )

    @contextmanager
    def without_supervisor(self) -> Iterator[None]:
        """Nothing that ends is started anew meanwhile."""
        supervisor = self.home.supervisor_pid()
        assert supervisor
        os.kill(supervisor, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)

    def spools_are_empty(self) -> bool:
        """Whether the cloud has all that the edges have; a spool that does not answer is not empty."""
        reports: list[dict[str, Any] | None] = [spool_status(edge) for edge in self.edges.values()]
        return all(report is not None and not report["waiting"]["instances"] for report in reports)

    def refused_by_cloud(self) -> list[str]:
        """What the cloud will not take, in words."""
        reports = [spool_status(edge) or {} for edge in self.edges.values()]
        return [one["reason"] for report in reports for one in report.get("refused_instances", [])]

    def await_well(self, *, parts: int = 0, seconds: float = 120) -> None:
        """Waits until every part runs.

        Arguments:
            parts: how many edges of ours must be among them.
            seconds: how long.

        Raises:
            TimeoutError: it takes longer.
        """
        until = time.monotonic() + seconds
        while True:
            status = read_status(self.home, memory=False)
            if status.is_well and sum(part.name.endswith(f"-{EDGE}") for part in status.parts) >= parts:
                return
            if time.monotonic() > until:
                raise TimeoutError(str([(p.name, p.state, p.message) for p in status.parts if p.state != "running"]))
            time.sleep(0.1)

    def _settings_of(self, service: str) -> dict[str, str]:
        values = {VARIABLE: f"@{self.crash_file(service)}"}
        name = f"LIGHTBOX_{service.upper()}"
        if service == "ingest_gateway":
            values |= {
                f"{name}_S3_ENDPOINT": f"http://127.0.0.1:{self.lines['ingest-s3'].port}",
                f"{name}_SPOOL_DIR": str(self.disks[service].folder / "spool"),
                f"{name}_MIN_FREE": "0",
                f"{name}_STORE_TIMEOUT": "5",
                f"{name}_PUBLISH_TIMEOUT": "5",
            }
        if service == "indexing":
            url = database_url(self.credentials, self.lines["indexing-postgres"].port, "indexing")
            values |= {
                f"{name}_S3_ENDPOINT": f"http://127.0.0.1:{self.lines['indexing-s3'].port}",
                f"{name}_DATABASE_URL": url,
            }
        return values

    def _edge_environment(self, part: str) -> dict[str, str]:
        return {
            VARIABLE: f"@{self.crash_file(part)}",
            "LIGHTBOX_EDGE_GATEWAY_SPOOL_DIR": str(self.disks[part].folder / "spool"),
            "LIGHTBOX_EDGE_GATEWAY_MINIMUM_FREE_BYTES": "0",
            "LIGHTBOX_EDGE_GATEWAY_SEGMENT_BYTES": str(1 << 20),  # so that segments are used up and used again
            "LIGHTBOX_EDGE_GATEWAY_CLOUD_URL": f"http://127.0.0.1:{self.lines['uplink'].port}",
        }

    def _restart(self, names: tuple[str, ...]) -> None:
        before = {name: self.pid(name) for name in names}
        for pid in before.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 120
        while any(read_json(self.home.state_file)["parts"][name]["pid"] in (None, pid) for name, pid in before.items()):
            if time.monotonic() > until:
                raise TimeoutError(f"{names} were not started anew")
            time.sleep(0.1)
        self.await_well()

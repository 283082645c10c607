"""The stack that is measured: the demo of this checkout, brought up if it is not."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.demo import Notes
from cli.identity_api import IdentityApi
from cli.stack_client import Stack as StackClient
from deploy.demo.people import NORTH
from deploy.local.control import read_status
from deploy.local.service_parts import known_edges


@dataclass(frozen=True)
class Stack:
    """A running Lightbox.

    Attributes:
        address: the front door.
        home: the data folder.
        edge_port: where the northern edge takes C-STORE.
        edge_title: its AE title.
        password: of the northern radiologist.
        gateway: the root of the ingest gateway's DICOMweb, behind the front door.
        pids: the process of each part.
        s3_metrics_port: where the object store counts its requests.
    """

    address: str
    home: Path
    edge_port: int
    edge_title: str
    password: str
    gateway: str
    pids: Mapping[str, int]
    s3_metrics_port: int

    def machine_token(self, tenant: str = NORTH.tenant) -> str:
        """An access token of a machine of a tenant that may store and read; it lasts ten minutes."""
        with IdentityApi.of_stack(StackClient.find().home) as identity:
            return identity.token(*identity.create_client(tenant, "benchmark", ["dicom:read", "dicom:write"]))

    def user_token(self) -> str:
        """An access token of the northern radiologist; it lasts ten minutes."""
        with httpx.Client(base_url=self.address) as client:
            form = {"name": NORTH.people[0].name, "password": self.password, "next": "/"}
            answer = client.post(f"/auth/login/{NORTH.tenant}", data=form, headers={"Origin": self.address})
            if answer.status_code != 303:
                raise RuntimeError(f"the log-in was refused: {answer.status_code}")
            return str(client.cookies["lightbox_access"])


@contextmanager
def running_stack() -> Iterator[Stack]:
    """The demo's stack; it is left running, as it may have been before."""
    done = subprocess.run([sys.executable, "-m", "cli.main", "demo", "--json"], check=True, capture_output=True)
    address = json.loads(done.stdout)["address"]
    stack = StackClient.find()
    edge = next(edge for edge in known_edges(stack.home) if edge.tenant == NORTH.tenant)
    password = Notes.read(stack.home).passwords[NORTH.tenant][NORTH.people[0].name]
    yield Stack(
        address=address,
        home=stack.home.folder,
        edge_port=edge.dimse_port,
        edge_title=edge.ae_title,
        password=password,
        gateway=f"http://127.0.0.1:{stack.ports['ingest_gateway']}/dicom-web",
        pids={part.name: part.pid for part in read_status(stack.home, memory=False).parts if part.pid},
        s3_metrics_port=stack.ports["seaweedfs.metricsPort"],
    )

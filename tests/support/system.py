"""The whole stack for system tests: brought up once per run in a folder of its own, with two tenants and their people.

LIGHTBOX_TEST_STACK names the data folder of a stack that runs already, so that a test under development starts at once.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from cli.identity_api import IdentityApi
from deploy.local.control import StackStatus, read_status
from deploy.local.home import CHECKOUT, Home

TENANTS: Final = ("north", "south")
PEOPLE: Final = {
    "vera": "viewer",
    "tom": "technologist",
    "rita": "radiologist",
    "ada": "tenant-administrator",
}
PASSWORD: Final = "correct horse battery staple"
_SCOPES: Final = ["dicom:read", "dicom:write", "audit:read"]


def run_lightbox(home: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs the command line for a data folder.

    Arguments:
        home: the data folder.
        arguments: the command and its options.
        timeout: seconds it may take.
    """
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "LIGHTBOX_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class SystemStack:
    """A running stack with the tenants ``north`` and ``south``.

    Attributes:
        folder: its data folder.
        url: the front door.
        clients: for each tenant, the id and secret of an OAuth2 client that may read, write and see the audit record.
    """

    folder: Path
    url: str
    clients: dict[str, tuple[str, str]]

    @property
    def home(self) -> Home:
        """The data folder as the stack knows it."""
        return Home(self.folder)

    def status(self) -> StackStatus:
        """What the supervisor knows of each part."""
        return read_status(self.home, memory=False)

    def token(self, tenant: str) -> str:
        """An access token of the tenant's client."""
        with IdentityApi.of_stack(self.home) as identity:
            return identity.token(*self.clients[tenant])

    def client(self, tenant: str, **options: Any) -> httpx.Client:
        """An HTTP client of the front door with the tenant's token."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token(tenant)}"},
            timeout=options.pop("timeout", 60),
            **options,
        )

    def browser(self, tenant: str, user: str) -> httpx.Client:
        """An HTTP client that has logged in as a person, with the cookies of the session."""
        client = httpx.Client(base_url=self.url, headers={"Origin": self.url}, timeout=60)
        form = {"name": user, "password": PASSWORD, "next": "/"}
        answer = client.post(f"/auth/login/{tenant}", data=form)
        assert answer.status_code == 303, answer.text
        return client


@contextmanager
def running_stack(folder: Path) -> Iterator[None]:
    """A stack of its own in the folder, stopped at the end."""
    done = run_lightbox(folder, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        yield
    finally:
        run_lightbox(folder, "down")


def populate(folder: Path) -> SystemStack:
    """Makes the tenants, people and clients that are not there yet."""
    home = Home(folder)
    clients: dict[str, tuple[str, str]] = {}
    with IdentityApi.of_stack(home) as identity:
        for tenant in TENANTS:
            identity.create_tenant(tenant, f"{tenant.title()} Hospital")
            for name, role in PEOPLE.items():
                identity.create_user(tenant, name, name.title(), role, PASSWORD)
            clients[tenant] = identity.create_client(tenant, "tests", _SCOPES)
    return SystemStack(folder, read_status(home, memory=False).public_url, clients)


@pytest.fixture(scope="session")
def stack() -> Iterator[SystemStack]:
    """The stack of this run, or the one that LIGHTBOX_TEST_STACK names."""
    named = os.environ.get("LIGHTBOX_TEST_STACK", "")
    if named:
        yield populate(Path(named).resolve())
        return
    with tempfile.TemporaryDirectory(prefix="lightbox-stack-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        Path(folder).chmod(0o711)
        with running_stack(home):
            yield populate(home)

"""If these fail, an operator can't make clinics and users from the command line.

The service runs as a process of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from cli import clients, nodes, tenants, users
from cli.output import CliError
from cli.stack_client import Stack
from deploy.local.credentials import load_credentials
from deploy.local.home import Home
from tests.services.identity.conftest import BOOTSTRAP, SEALING_KEY, Identity
from tests.support.backing import Backing, new_tenant_id

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def address(backing: Backing, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``python -m services identity``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("identity-process")
    values = {
        "PORT": str(port),
        "DATABASE_URL": backing.database_url("identity"),
        "KAFKA_BOOTSTRAP": backing.kafka_bootstrap,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SPOOL_DIR": str(folder / "spool"),
        "KEY_ENCRYPTION_KEY": SEALING_KEY,
        "BOOTSTRAP_SECRET": BOOTSTRAP,
        "HASHING_ROUNDS": "1",
        "HASHING_MEMORY_KIB": "8192",
    }
    environment = os.environ | {f"LIGHTBOX_IDENTITY_{key}": value for key, value in values.items()}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services", "identity"], env=environment, stdout=log, stderr=log
        )
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            assert process.wait(30) in (0, -signal.SIGTERM)  # it hands the signal on when it has ended its work
    logged = (folder / "log").read_text()
    assert BOOTSTRAP not in logged
    assert all(isinstance(json.loads(line), dict) for line in logged.splitlines())


def _wait_until_ready(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/health/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail("the identity service did not become ready")


@pytest.fixture
def run(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the service."""
    home = Home(tmp_path)
    credentials = replace(load_credentials(home), identity_bootstrap_secret=BOOTSTRAP)
    stack = Stack(home=home, credentials=credentials, ports={"caddy": int(address.rpartition(":")[2])})
    monkeypatch.setattr(Stack, "find", lambda **_: stack)

    def run_command(app: typer.Typer, *arguments: str, entered: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=entered)

    return run_command


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_clinic_with_a_user_is_made_and_the_user_logs_in(run: Run, address: str) -> None:
    tenant = new_tenant_id()
    made = run(tenants.app, "create", tenant, "--name", "Northern [Clinic]")
    assert made.exit_code == 0
    assert "Northern [Clinic]" in made.output
    assert f"lightbox user add {tenant}" in made.output
    added = _json(run(users.app, "add", tenant, "anna", "--role", "radiologist", "--role", "viewer", "--json"))
    assert added["roles"] == ["radiologist", "viewer"]

    def log_in(name: str, password: str) -> int:
        form = {"name": name, "password": password}
        return httpx.post(f"{address}/auth/login/{tenant}", data=form, headers={"Origin": address}).status_code

    assert log_in("anna", added["password"]) == 303
    from_stdin = ("add", tenant, "berta", "--role", "viewer", "--password-stdin")
    assert run(users.app, *from_stdin, entered="a password from stdin\n").exit_code == 0
    assert log_in("berta", "a password from stdin") == 303
    assert run(users.app, "disable", tenant, "berta").exit_code == 0
    assert log_in("berta", "a password from stdin") == 401
    assert run(users.app, "enable", tenant, "berta").exit_code == 0
    assert log_in("berta", "a password from stdin") == 303
    fresh = _json(run(users.app, "reset-password", tenant, "berta", "--json"))["password"]
    assert log_in("berta", fresh) == 303
    listed = _json(run(users.app, "list", tenant, "--json"))["users"]
    assert [user["name"] for user in listed] == ["anna", "berta"]
    assert "berta" in run(users.app, "list", tenant).output

    assert run(tenants.app, "suspend", tenant).exit_code == 0
    assert log_in("berta", fresh) == 403
    assert _json(run(tenants.app, "resume", tenant, "--json"))["state"] == "active"
    assert tenant in [one["id"] for one in _json(run(tenants.app, "list", "--json"))["tenants"]]


def test_how_duplicates_are_stored_is_set_and_shown(run: Run, tenant: str) -> None:
    shown = _json(run(tenants.app, "set", tenant, "--duplicates", "refuse", "--requests-at-once", "2", "--json"))
    assert (shown["duplicates"], shown["requests_at_once"]) == ("refuse", 2)
    told = run(tenants.app, "show", tenant)
    assert told.exit_code == 0
    assert "goes to quarantine" in told.output
    listed = _json(run(tenants.app, "list", "--json"))["tenants"]
    assert [one["duplicates"] for one in listed if one["id"] == tenant] == ["refuse"]
    assert run(tenants.app, "set", tenant, "--duplicates", "replace").exit_code == 2
    with_nothing = run(tenants.app, "set", tenant)
    assert isinstance(with_nothing.exception, CliError)


def test_clients_come_and_go(run: Run, address: str, tenant: str) -> None:
    made = _json(run(clients.app, "add", tenant, "reports", "--scope", "dicom:read", "--json"))

    def token(secret: str) -> int:
        form = {"grant_type": "client_credentials"}
        return httpx.post(f"{address}/auth/token", data=form, auth=(f"{tenant}.reports", secret)).status_code

    assert token(made["client_secret"]) == 200
    fresh = _json(run(clients.app, "rotate", tenant, "reports", "--json"))["client_secret"]
    assert (token(made["client_secret"]), token(fresh)) == (401, 200)
    assert f"{tenant}.reports" in run(clients.app, "list", tenant).output
    assert run(clients.app, "remove", tenant, "reports").exit_code == 0
    assert token(fresh) == 401


def test_nodes_come_and_go(run: Run, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path))
    issued = _json(run(nodes.app, "certificate", "ct-1", "--json"))
    assert Path(issued["key"]).stat().st_mode & 0o077 == 0
    wanted = ("--certificate", issued["certificate"], "--calling", "CT1", "--network", "192.0.2.0/24")
    added = run(nodes.app, "add", tenant, "ct-1", *wanted)
    assert added.exit_code == 0, added.output
    assert "storescu +tls" in added.output
    assert run(nodes.app, "change", tenant, "ct-1", "--disable").exit_code == 0
    (node,) = _json(run(nodes.app, "list", tenant, "--json"))["nodes"]
    assert (node["calling_ae_titles"], node["networks"], node["enabled"]) == (["CT1"], ["192.0.2.0/24"], False)
    assert node["certificates"][0]["subject"] == "CN=ct-1"
    assert "disabled" in run(nodes.app, "list", tenant).output
    key_given = run(nodes.app, "add", tenant, "ct-2", "--certificate", issued["key"])
    assert isinstance(key_given.exception, CliError)
    assert "stays with the device" in key_given.exception.what
    assert run(nodes.app, "remove", tenant, "ct-1").exit_code == 0
    assert _json(run(nodes.app, "list", tenant, "--json"))["nodes"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "{}", "anna", "--role", "operator"), "is no role"),
        (("add", "{}", "Anna", "--role", "viewer"), "lower-case"),
        (("add", "t-missing", "anna", "--role", "viewer"), "There is no tenant"),
        (("add", "../../x", "anna", "--role", "viewer"), "Not Found"),
        (("disable", "{}", "nobody"), "There is no user"),
        (("add", "{}", "anna", "--role", "viewer", "--password-stdin"), "holds no password"),
    ],
    ids=str,
)
def test_mistakes_are_told_in_words(run: Run, tenant: str, arguments: tuple[str, ...], words: str) -> None:
    result = run(users.app, *(argument.format(tenant) for argument in arguments))
    assert isinstance(result.exception, CliError)
    assert words in result.exception.what

"""The one-machine stack: whoever runs Lightbox on a machine of their own relies on each of these."""

import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.control import read_status
from deploy.local.credentials import load_credentials
from deploy.local.home import Home, read_json, write_json
from deploy.local.service_parts import add_edge, remove_edge, service_names
from tests.support.system import run_lightbox, running_stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SERVERS = ("postgres", "seaweedfs", "kafka")


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A stack that these tests may break as they like."""
    with tempfile.TemporaryDirectory(prefix="lightbox-own-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        with running_stack(Path(folder) / "home"):
            yield Home(Path(folder) / "home")


def pids(home: Home) -> dict[str, int]:
    return {part.name: part.pid or 0 for part in read_status(home, memory=False).parts}


def wait_until_well(home: Home, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not (status := read_status(home, memory=False)).is_well:
        assert time.monotonic() < until, [(p.name, p.state, p.message) for p in status.parts if p.state != "running"]
        time.sleep(0.2)


def wait_for(home: Home, name: str, *, present: bool, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while (name in pids(home)) != present:
        assert time.monotonic() < until, f"{name} should {'' if present else 'not '}be there"
        time.sleep(0.2)


def wait_for_other_pids(home: Home, before: dict[str, int], names: tuple[str, ...], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while any(pids(home).get(name, 0) in (0, before[name]) for name in names):
        assert time.monotonic() < until, f"{names} did not come back"
        time.sleep(0.1)


def test_a_second_up_changes_nothing(home: Home) -> None:
    before = pids(home)
    assert set(before) == {*SERVERS, *service_names(), "caddy"}
    done = run_lightbox(home.folder, "up", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["phase"] == "running"
    assert pids(home) == before


def test_nothing_listens_beyond_this_machine(home: Home) -> None:
    listening = 0
    for name, pid in pids(home).items():
        for connection in psutil.Process(pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                address = connection.laddr.ip.removeprefix("::ffff:")
                assert address in ("127.0.0.1", "::1"), f"{name} listens on {address}:{connection.laddr.port}"
                listening += 1
    assert listening > 8


def test_secrets_are_for_the_owner_only(home: Home) -> None:
    assert home.secrets_file.stat().st_mode & 0o777 == 0o600
    secrets = [s for s in _texts(read_json(home.secrets_file)) if s != load_credentials(home).s3_access_key]
    assert len(set(secrets)) == len(secrets) > 10
    for name, pid in pids(home).items():
        command = " ".join(psutil.Process(pid).cmdline())
        assert not [s for s in secrets if s in command], f"the command line of {name} tells a secret"
    for log in (home.folder / "logs").glob("*.log"):
        text = log.read_text(errors="replace")
        assert not [s for s in secrets if s in text and s != load_credentials(home).kafka_cluster], log.name


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    else:
        yield str(value)


def test_the_stack_fits_into_a_small_machine(home: Home) -> None:
    status = read_status(home)
    assert sum(part.memory for part in status.parts) + status.supervisor_memory < 2.5e9


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_was_killed_comes_back(home: Home, server: str) -> None:
    before = pids(home)
    os.kill(before[server], signal.SIGKILL)
    wait_for_other_pids(home, before, (server,))
    wait_until_well(home)
    after = pids(home)
    assert {n: p for n, p in after.items() if n != server} == {n: p for n, p in before.items() if n != server}


def test_services_and_front_door_that_were_killed_come_back(home: Home) -> None:
    before = pids(home)
    killed = (*service_names(), "caddy")
    for name in killed:
        os.kill(before[name], signal.SIGKILL)
    wait_for_other_pids(home, before, killed)
    wait_until_well(home)
    assert {part.restarts >= 1 for part in read_status(home).parts if part.name in killed} == {True}


def test_a_service_that_hangs_is_started_anew(home: Home) -> None:
    before = pids(home)
    os.kill(before["audit"], signal.SIGSTOP)
    wait_for_other_pids(home, before, ("audit",))
    wait_until_well(home)


def test_edges_come_and_go_with_their_files(home: Home) -> None:
    edge = add_edge(home, "north", "edge", client_id="north.edge", client_secret="x" * 32, ae_title="NORTH")
    wait_for(home, "edge-north", present=True)
    assert edge.file(home).stat().st_mode & 0o777 == 0o600
    assert remove_edge(home, "north", "edge")
    wait_for(home, "edge-north", present=False)


def test_a_second_stack_runs_beside_the_first(home: Home, tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o711)
    with running_stack(tmp_path / "home"):
        second = Home(tmp_path / "home")
        assert read_status(second).is_well
        assert not set(read_json(second.ports_file).values()) & set(read_json(home.ports_file).values())
        assert not set(pids(second).values()) & set(pids(home).values())
    assert read_status(home).is_well


def test_after_the_supervisor_was_killed_up_starts_over_cleanly(home: Home) -> None:
    before = pids(home)
    supervisor = home.supervisor_pid()
    assert supervisor
    os.kill(supervisor, signal.SIGKILL)
    done = run_lightbox(home.folder, "up")
    assert done.returncode == 0, done.stderr
    assert read_status(home).is_well
    assert not set(pids(home).values()) & set(before.values())
    for pid in before.values():
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_logs_are_shown_by_part(home: Home) -> None:
    done = run_lightbox(home.folder, "logs", "postgres")
    assert done.returncode == 0
    assert re.search("ready to accept connections", done.stdout)
    missing = run_lightbox(home.folder, "logs", "nobody")
    assert missing.returncode == 1
    assert "There is no log of 'nobody'" in missing.stderr


def test_down_leaves_no_process_and_up_finds_its_ports_again(home: Home) -> None:
    tree = [p for pid in pids(home).values() for p in (psutil.Process(pid), *psutil.Process(pid).children(True))]
    ports = read_json(home.ports_file)
    done = run_lightbox(home.folder, "down")
    assert done.returncode == 0, done.stderr
    assert [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert home.supervisor_pid() is None
    assert run_lightbox(home.folder, "status").returncode == 3
    again = run_lightbox(home.folder, "up")
    assert again.returncode == 0, again.stderr
    assert read_json(home.ports_file) == ports


def test_the_owner_of_the_data_folder_can_set_more(home: Home) -> None:
    before = pids(home)
    write_json(home.settings_file, {"audit": {"LIGHTBOX_AUDIT_LOG_LEVEL": "WARNING"}})
    os.kill(before["audit"], signal.SIGTERM)
    wait_for_other_pids(home, before, ("audit",))
    wait_until_well(home)
    assert psutil.Process(pids(home)["audit"]).environ()["LIGHTBOX_AUDIT_LOG_LEVEL"] == "WARNING"
    home.settings_file.unlink()

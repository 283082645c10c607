"""``python -m deploy.local``: the process that starts all parts in order and keeps them alive until SIGTERM."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from deploy.local.caddy import caddy
from deploy.local.credentials import Credentials, load_credentials
from deploy.local.home import Home, bound_log, find_home, write_json
from deploy.local.orphans import end_orphans
from deploy.local.part import Part
from deploy.local.ports import remembered_ports
from deploy.local.provision import provision
from deploy.local.servers import PORT_NAMES, server_parts
from deploy.local.service_parts import (
    DICOM_DOOR,
    Edge,
    edge_part,
    known_edges,
    public_url,
    service_names,
    service_part,
)
from deploy.local.watch import Watch
from libs.events import EventsUnavailable

_PROVISION_TRIES: Final = 5
_log = logging.getLogger(__name__)


class Supervisor:
    """All parts of one data folder."""

    def __init__(self, home: Home, credentials: Credentials, ports: dict[str, int]) -> None:
        self._home = home
        self._credentials = credentials
        self._ports = ports
        self._services = tuple(name for name in service_names() if name in ports)
        self._watches: dict[str, Watch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._edges: dict[str, Edge] = {}
        self._phase = "starting"
        self._error = ""
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._changed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Starts everything, watches it, and stops it in reverse order when ``stop`` is set."""
        work = [asyncio.create_task(job) for job in (self._write_state(), self._bound_logs(), self._bring_up())]
        await stop.wait()
        self._become("stopping")
        for task in (*work[1:], *self._tasks.values()):
            task.cancel()
        await asyncio.gather(*work[1:], *self._tasks.values(), return_exceptions=True)
        await self._stop_all()
        work[0].cancel()
        self._become("stopped")
        write_json(self._home.state_file, self._report())

    async def _bring_up(self) -> None:
        """Servers, what they need, services, the front door, then edges as they come and go."""
        try:
            servers = await asyncio.to_thread(server_parts, self._home, self._credentials, self._ports)
            await self._start(servers)
            await self._provision()
            await self._start(service_part(name, self._home, self._credentials, self._ports) for name in self._services)
            await self._start([caddy(self._home, self._ports)])
        except Exception as error:  # whatever it is, it has to be seen
            _log.exception("the stack can't be brought up")
            self._become("failed", str(error))
            return
        self._become("running")
        while True:
            await self._follow_edges()
            await asyncio.sleep(1)

    async def _start(self, parts: Iterable[Part]) -> None:
        """Starts the parts at once and waits until each can be used."""
        watches = [self._watch(part) for part in parts]
        await asyncio.gather(*(watch.ready.wait() for watch in watches))

    def _watch(self, part: Part) -> Watch:
        watch = self._watches[part.name] = Watch(part, self._home, self._changed.set)
        self._tasks[part.name] = asyncio.create_task(watch.run())
        return watch

    async def _provision(self) -> None:
        """Provisions the servers; a failure that may pass is tried again.

        Raises:
            OSError: it failed again and again.
        """
        for tried in range(1, _PROVISION_TRIES + 1):
            try:
                await provision(self._credentials, self._ports["postgres"], self._ports["kafka.broker"])
                return
            except* (OSError, asyncpg.PostgresError, EventsUnavailable) as errors:
                _log.warning("provisioning failed, attempt %d: %r", tried, errors.exceptions)
                reason = str(errors.exceptions[0])
            await asyncio.sleep(1)
        raise OSError(f"database and topics can't be provisioned: {reason}")

    async def _follow_edges(self) -> None:
        """Starts edges that were added, stops those that were removed, restarts those that changed."""
        wanted = {edge.part_name: edge for edge in await asyncio.to_thread(known_edges, self._home)}
        for name in [name for name, edge in self._edges.items() if wanted.get(name) != edge]:
            self._tasks.pop(name).cancel()
            await self._watches[name].stop()
            del self._watches[name], self._edges[name]
            self._changed.set()
        for name in wanted.keys() - self._edges.keys():
            self._edges[name] = wanted[name]
            self._watch(edge_part(wanted[name], self._home, self._ports))
            self._changed.set()

    async def _stop_all(self) -> None:
        """Edges, the front door, services, servers: whoever needs another ends first."""
        servers = {"postgres", "seaweedfs", "kafka"}
        services = set(self._services)
        groups: list[list[Watch]] = [[], [], [], []]
        for name, watch in self._watches.items():
            last = 3 if name in servers else 2 if name in services else 1 if name == "caddy" else 0
            groups[last].append(watch)
        for group in groups:
            await asyncio.gather(*(watch.stop() for watch in group))

    def _become(self, phase: str, error: str = "") -> None:
        self._phase, self._error = phase, error
        _log.info("%s %s", phase, error)
        self._changed.set()

    def _report(self) -> dict[str, Any]:
        return {
            "supervisor": os.getpid(),
            "started": self._started,
            "phase": self._phase,
            "error": self._error,
            "public_url": public_url(self._ports),
            "services": list(self._services),
            "parts": {name: watch.report() for name, watch in self._watches.items()},
        }

    async def _write_state(self) -> None:
        while True:
            write_json(self._home.state_file, self._report())
            self._changed.clear()
            await self._changed.wait()

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(60)
            for name in list(self._watches):
                await asyncio.to_thread(bound_log, self._home.log(name))


def all_ports(home: Home, *, renew_taken: bool = False) -> dict[str, int]:
    """The remembered ports of everything but the edges."""
    return remembered_ports(home, (*PORT_NAMES, *service_names(), DICOM_DOOR, "caddy"), renew_taken=renew_taken)


def _lock(home: Home) -> int:
    """Takes the supervisor's lock; ends the process when another has it."""
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + 5
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                sys.exit(f"another supervisor has {home.lock_file}")
            time.sleep(0.1)
        else:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor


async def _run(home: Home) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    credentials = load_credentials(home)
    await Supervisor(home, credentials, all_ports(home, renew_taken=True)).run(stop)


def main() -> None:
    """Supervises the stack of the data folder that the environment names."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("aiokafka", "alembic", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    home = find_home()
    home.create()
    lock = _lock(home)
    try:
        end_orphans(home)
        asyncio.run(_run(home))
    finally:
        os.close(lock)

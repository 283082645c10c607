"""The three servers that hold the data, as one group: what the supervisor watches and what tests start alone."""

import asyncio
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from deploy.local import kafka_broker, seaweedfs
from deploy.local.credentials import Credentials, load_credentials
from deploy.local.home import Home
from deploy.local.part import Part, start, stop
from deploy.local.ports import remembered_ports
from deploy.local.postgres import postgres
from deploy.local.provision import provision

PORT_NAMES: Final = (
    "postgres",
    *(f"seaweedfs.{option}" for option in seaweedfs.PORTS),
    *(f"kafka.{listener}" for listener in kafka_broker.PORTS),
)


class StartFailed(Exception):
    """A part did not become ready; the text says which and where its log is."""


@dataclass(frozen=True)
class Addresses:
    """Where the servers of a data folder listen."""

    postgres_port: int
    s3_endpoint: str
    kafka_bootstrap: str


def _of(ports: dict[str, int], part: str) -> dict[str, int]:
    return {name.removeprefix(f"{part}."): port for name, port in ports.items() if name.startswith(f"{part}.")}


def addresses(ports: dict[str, int]) -> Addresses:
    """The addresses that follow from the remembered ports."""
    return Addresses(
        postgres_port=ports["postgres"],
        s3_endpoint=f"http://127.0.0.1:{ports['seaweedfs.s3.port']}",
        kafka_bootstrap=f"127.0.0.1:{ports['kafka.broker']}",
    )


def server_parts(home: Home, credentials: Credentials, ports: dict[str, int]) -> list[Part]:
    """PostgreSQL, SeaweedFS and Kafka; fetches Kafka's jars if need be.

    Raises:
        DownloadFailed: one of the jars can't be had.
        OSError: a server can't be run on this machine.
    """
    return [
        postgres(home, credentials, ports["postgres"]),
        seaweedfs.seaweedfs(home, credentials, _of(ports, "seaweedfs")),
        kafka_broker.kafka(home, credentials, _of(ports, "kafka")),
    ]


async def wait_until_ready(part: Part, process: subprocess.Popen[bytes], log: str) -> None:
    """Asks the part until it can be used.

    Raises:
        StartFailed: it has ended, or takes too long.
    """
    until = time.monotonic() + part.start_seconds
    while True:
        try:
            await part.ready()
        except OSError as error:
            if process.poll() is not None:
                raise StartFailed(f"{part.name} ended with {process.returncode}; see {log}") from error
            if time.monotonic() > until:
                raise StartFailed(f"{part.name} is not ready: {error}; see {log}") from error
            await asyncio.sleep(0.1)
        else:
            return


class Servers:
    """The three servers without a supervisor; they end with the process that started them."""

    def __init__(self, home: Home) -> None:
        self._home = home
        home.create()
        self.credentials = load_credentials(home)
        self.ports = remembered_ports(home, PORT_NAMES, renew_taken=True)
        self.addresses = addresses(self.ports)
        self._running: list[tuple[Part, subprocess.Popen[bytes]]] = []

    def start(self) -> None:
        """Starts all three, waits for them and provisions them.

        Raises:
            StartFailed: one of them does not become ready; none is left running.
        """
        try:
            for part in server_parts(self._home, self.credentials, self.ports):
                self._running.append((part, start(part, self._home.log(part.name))))
            with ThreadPoolExecutor(1) as apart:  # the caller may have an event loop of its own
                apart.submit(asyncio.run, self._ready()).result()
        except BaseException:
            self.stop()
            raise

    async def _ready(self) -> None:
        async with asyncio.TaskGroup() as group:
            for part, process in self._running:
                group.create_task(wait_until_ready(part, process, str(self._home.log(part.name))))
        await provision(self.credentials, self.ports["postgres"], self.ports["kafka.broker"])

    def stop(self) -> None:
        """Stops them, the last started first, and waits for each."""
        for part, process in reversed(self._running):
            stop(part, process)
        self._running.clear()

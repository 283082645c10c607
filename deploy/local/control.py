"""Starting, asking and stopping the supervisor from another process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psutil

from deploy.local.caddy import program as caddy_program
from deploy.local.download import Progress, silent
from deploy.local.home import CHECKOUT, Home, open_log, read_json
from deploy.local.kafka_jars import fetch_jars
from deploy.local.orphans import end_orphans
from deploy.local.part import clean_environment
from deploy.local.postgres import installation
from deploy.local.seaweedfs import program as weed_program
from deploy.local.service_parts import known_edges, service_names
from deploy.local.viewer import viewer_folder

_STOP_SECONDS: Final = 120


class NotStarted(Exception):
    """The stack did not come up; the text says why and what helps."""


@dataclass(frozen=True)
class PartStatus:
    """What is known of one part.

    Attributes:
        name: the part.
        state: ``running`` when all is well.
        message: why it is in this state, where there is something to say.
        pid: its process.
        port: where it listens on 127.0.0.1.
        dicom_port: where it listens for DICOM over TLS besides; 0 when it does not.
        memory: resident bytes of it and its children, shared pages counted in part.
        since: when this process was started, ISO 8601.
        restarts: how often it was started anew since the stack came up.
    """

    name: str
    state: str
    message: str
    pid: int | None
    port: int
    dicom_port: int
    memory: int
    since: str
    restarts: int


@dataclass(frozen=True)
class StackStatus:
    """What is known of the stack.

    Attributes:
        phase: ``stopped``, ``starting``, ``running``, ``stopping`` or ``failed``.
        error: why it failed.
        public_url: the front door, once it is known.
        parts: all parts in the order of their start.
        supervisor_memory: resident bytes of the supervisor.
    """

    phase: str
    error: str
    public_url: str
    parts: tuple[PartStatus, ...]
    supervisor_memory: int

    @property
    def is_well(self) -> bool:
        """Whether everything runs and answers."""
        return self.phase == "running" and all(part.state == "running" for part in self.parts)


def memory_of(pid: int, *, children: bool = True) -> int:
    """Resident bytes of a process; pages that are shared count in part where the system tells.

    Arguments:
        pid: the process.
        children: count those that it has started as well.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *(root.children(recursive=True) if children else ())):
            with contextlib.suppress(psutil.Error):
                try:
                    total += process.memory_full_info().pss
                except (psutil.AccessDenied, AttributeError):
                    total += process.memory_info().rss
    return total


def read_status(home: Home, *, memory: bool = True) -> StackStatus:
    """What the supervisor last wrote, or ``stopped`` when there is none.

    Arguments:
        home: the data folder.
        memory: also measure how much memory each part takes, which costs some milliseconds a process.
    """
    state = read_json(home.state_file)
    supervisor = home.supervisor_pid()
    alive = supervisor is not None and state.get("supervisor") == supervisor
    parts = tuple(
        PartStatus(
            name=name,
            state=part["state"] if alive else "stopped",
            message=part["message"] if alive else "",
            pid=part["pid"] if alive else None,
            port=part["port"],
            dicom_port=part.get("dicom_port", 0),
            memory=memory_of(part["pid"]) if alive and memory and part["pid"] else 0,
            since=part["since"] if alive else "",
            restarts=part["restarts"] if alive else 0,
        )
        for name, part in state.get("parts", {}).items()
    )
    before = "starting" if supervisor is not None else "stopped"
    return StackStatus(
        phase=state["phase"] if alive else before,
        error=state["error"] if alive else "",
        public_url=state.get("public_url", ""),
        parts=parts,
        supervisor_memory=memory_of(supervisor, children=False) if supervisor and alive and memory else 0,
    )


def prepare(progress: Progress = silent) -> None:
    """Fetches what the parts need, so that it can be seen.

    Raises:
        DownloadFailed: something can't be had.
        FileNotFoundError: a wheel is not installed.
    """
    for find in (installation, weed_program, caddy_program):
        find()
    fetch_jars(progress)
    viewer_folder(progress)


def start_supervisor(home: Home) -> bool:
    """Starts the supervisor on its own, unless one runs. Returns whether it was started.

    One that was started before a service of this checkout came to be is stopped first.

    Raises:
        TimeoutError: the one that is to be stopped does not end.
    """
    home.create()
    if home.supervisor_pid() is not None:
        if not _is_outdated(home):
            return False
        stop_supervisor(home)
    log = open_log(home.log("supervisor"))
    try:
        subprocess.Popen(
            [sys.executable, "-m", "deploy.local"],
            cwd=CHECKOUT,
            env={**clean_environment(), **_ours(), "LIGHTBOX_HOME": str(home.folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    return True


def _ours() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k == "LIGHTBOX_CACHE"}


def follow_start(home: Home, seconds: float = 240) -> Iterator[StackStatus]:
    """Yields the status until everything runs.

    Arguments:
        home: the data folder.
        seconds: how long to wait.

    Raises:
        NotStarted: it failed, or took too long.
    """
    until = time.monotonic() + seconds
    came = time.monotonic() + 15
    while True:
        status = read_status(home, memory=False)
        yield status
        if status.is_well and len(status.parts) >= _expected(home):
            return
        if status.phase == "failed":
            raise NotStarted(status.error)
        if status.phase == "stopped" and time.monotonic() > came:
            raise NotStarted(f"the supervisor has ended:\n{_tail(home)}")
        if time.monotonic() > until:
            late = [f"{p.name} is {p.state} {p.message}".strip() for p in status.parts if p.state != "running"]
            raise NotStarted("; ".join(late) or "it takes too long")
        time.sleep(0.2)


def _is_outdated(home: Home) -> bool:
    """Whether the supervisor that runs was started before a service that this checkout has came to be."""
    state = read_json(home.state_file)
    return home.supervisor_pid() == state.get("supervisor", 0) and set(service_names()) != set(
        state.get("services", service_names())
    )


def _expected(home: Home) -> int:
    """How many parts a complete stack has: servers, services, the front door and the edges written down."""
    return 4 + len(service_names()) + len(known_edges(home))


def _tail(home: Home) -> str:
    try:
        lines = home.log("supervisor").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "it has left no log"
    return "\n".join(lines[-8:])


def stop_supervisor(home: Home) -> bool:
    """Stops the stack and waits until all of it has ended. Returns whether anything was running.

    Raises:
        TimeoutError: it does not end.
    """
    running = home.supervisor_pid()
    if running is None:
        end_orphans(home)
        return False
    until = time.monotonic() + _STOP_SECONDS
    asked = False
    while (pid := home.supervisor_pid()) is not None:
        if pid and not asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            asked = True
        if time.monotonic() > until:
            raise TimeoutError(f"the supervisor, process {pid}, does not end; see {home.log('supervisor')}")
        time.sleep(0.1)
    return True


def restart_part(home: Home, name: str) -> bool:
    """Asks a part to end, upon which the supervisor starts it anew. False when it does not run.

    Arguments:
        home: the data folder.
        name: the part.
    """
    part = read_json(home.state_file).get("parts", {}).get(name)
    if not part or not part["pid"] or home.supervisor_pid() is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(part["pid"], part["stop_signal"])
        return True
    return False

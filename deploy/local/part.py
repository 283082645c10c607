"""What the supervisor needs to know of a part, and how its process is started and ended."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.local.home import CHECKOUT, open_log

Probe = Callable[[], Awaitable[None]]
"""Raises OSError (or a subclass) when the part does not answer as it should."""

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_OURS: Final = ("LIGHTBOX_", "PG", "AWS_", "KAFKA_", "WEED_", "JAVA_", "JDK_", "CLASSPATH")


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    Attributes:
        name: its name in ``status``, of its log and of its folder.
        command: the program and its arguments.
        port: where it listens on 127.0.0.1, for people to read.
        ready: whether it can be used.
        live: whether it answers at all; a part that fails it three times in a row is restarted.
        environment: what it gets besides the environment of the supervisor.
        prepare: run before each start; makes folders and configuration.
        stop_signal: asks it to end.
        stop_seconds: how long it may take to end before it is killed.
        start_seconds: how long it may take to become live.
        user: user and group id to run it under; None for our own.
        prefix: a command that starts the command.
        dicom_port: where it listens for DICOM besides, for people to read; 0 when it does not.
    """

    name: str
    command: tuple[str, ...]
    port: int
    ready: Probe
    live: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20
    start_seconds: float = 60
    user: tuple[int, int] | None = None
    prefix: tuple[str, ...] = ()
    dicom_port: int = 0


def clean_environment() -> dict[str, str]:
    """Our environment without what would change how a part behaves."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}


def start(part: Part, log: Path) -> subprocess.Popen[bytes]:
    """Prepares and spawns the part.

    Arguments:
        part: what to start.
        log: the file that takes what it writes.

    Raises:
        OSError: it can't be started.
    """
    part.prepare()
    return spawn(part, log)


def spawn(part: Part, log: Path) -> subprocess.Popen[bytes]:
    """Starts the process in a session of its own; it is asked to end when the calling thread ends.

    Arguments:
        part: what to start; it was prepared.
        log: the file that takes what it writes.

    Raises:
        OSError: it can't be started.
    """
    output = open_log(log)

    def end_with_parent() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(part.stop_signal))

    drop = part.user if not part.prefix else None
    try:
        return subprocess.Popen(
            [*part.prefix, *part.command],
            cwd="/" if part.user else CHECKOUT,
            env={**clean_environment(), **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (one system call, which takes no lock)
            user=drop[0] if drop else None,
            group=drop[1] if drop else None,
            extra_groups=[] if drop else None,
        )
    finally:
        os.close(output)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills the part and the processes it has started, and waits for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def stop(part: Part, process: subprocess.Popen[bytes]) -> None:
    """Asks the part to end, waits, and kills it when it takes too long."""
    if process.poll() is None:
        process.send_signal(part.stop_signal)
        until = time.monotonic() + part.stop_seconds
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
    kill_group(process)

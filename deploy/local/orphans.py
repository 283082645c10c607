"""What a supervisor that was killed has left behind."""

import contextlib
import logging
import os
import signal

import psutil

from deploy.local.home import Home, read_json

_log = logging.getLogger(__name__)


def end_orphans(home: Home) -> None:
    """Ends the parts of a supervisor that was killed; the kernel has asked them to end already, where it can."""
    left: list[tuple[psutil.Process, int]] = []
    for report in read_json(home.state_file).get("parts", {}).values():
        with contextlib.suppress(psutil.Error):
            if report["pid"]:
                process = psutil.Process(report["pid"])
                if abs(process.create_time() - report["created"]) < 1:
                    left.append((process, report["stop_signal"]))
    for process, number in left:
        _log.warning("ending process %d, left over from an earlier supervisor", process.pid)
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
    _, alive = psutil.wait_procs([process for process, _ in left], timeout=20)
    for process in alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)

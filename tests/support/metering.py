"""What a process takes while something happens to it: memory at its peak and processor time, from /proc."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Taken:
    """What was taken.

    Attributes:
        memory: bytes at the peak beyond what the process had before.
        processor: seconds of processor time, which a busy machine does not stretch as it does the clock's.
        elapsed: seconds by the clock.
    """

    memory: int = 0
    processor: float = 0.0
    elapsed: float = 0.0


@contextmanager
def metered(pid: int) -> Iterator[Taken]:
    """Meters a process; the result is filled in at the end of the block."""
    taken = Taken()
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    before, spent, began = _status(pid, "VmRSS"), _processor(pid), time.monotonic()
    yield taken
    taken.elapsed = time.monotonic() - began
    taken.processor = _processor(pid) - spent
    taken.memory = _status(pid, "VmHWM") - before


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS

"""Interleaved runs, medians with their spread, and the table that shows them."""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

RUNS = int(os.environ.get("LIGHTBOX_BENCH_RUNS", "5"))
console = Console()


def interleave(subjects: Mapping[str, Callable[[], float]], *, runs: int = RUNS) -> dict[str, list[float]]:
    """Runs each subject in turn, round after round, so that a slow minute of the machine hits all alike.

    Arguments:
        subjects: for each name, a function that does the work once and returns its figure.
        runs: rounds.
    """
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    with console.status("measuring") as status:
        for round_number in range(runs):
            for name, run in subjects.items():
                status.update(f"round {round_number + 1} of {runs}: {name}")
                figures[name].append(run())
    return figures


def report(title: str, unit: str, figures: Mapping[str, Sequence[float]], *, ours: str) -> None:
    """Prints medians, spreads and our ratio to each peer.

    Arguments:
        title: what was measured.
        unit: of the figures; more is better.
        figures: for each subject, its runs.
        ours: which of the subjects is Lightbox.
    """
    table = Table(title=title, caption=f"{machine()}; medians of {len(figures[ours])} interleaved runs")
    for column in ("", f"median, {unit}", "lowest – highest", "Lightbox is"):
        table.add_column(column, justify="left" if not column else "right")
    own = statistics.median(figures[ours])
    for name, runs in figures.items():
        median = statistics.median(runs)
        ratio = "" if name == ours else f"{own / median:.2f} ×"
        table.add_row(name, f"{median:,.1f}", f"{min(runs):,.1f} – {max(runs):,.1f}", ratio)
    console.print(table)


def machine() -> str:
    """What the figures were taken on."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load {load:.1f}"

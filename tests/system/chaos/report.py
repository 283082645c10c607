"""The report: a table by fault."""

from collections.abc import Iterable, Sequence
from typing import Final

from tests.system.chaos.rounds import Result

_HEAD: Final = (
    "fault",
    "runs",
    "acknowledged",
    "lost",
    "doubled",
    "changed",
    "wrong tenant",
    "stuck",
    "refused",
    "longest recovery",
)


def table(results: Iterable[Result]) -> str:
    """One line a fault, and one for all of them."""
    by_fault: dict[str, list[Result]] = {}
    for result in results:
        by_fault.setdefault(result.fault, []).append(result)
    rows = [_row(name, group) for name, group in sorted(by_fault.items())]
    rows.append(_row("all", [result for group in by_fault.values() for result in group]))
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    lines = [_line(row, widths) for row in (_HEAD, *rows)]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, lines[1])
    return "\n".join(lines)


def line(result: Result, number: int, of: int, rate: float) -> str:
    """One run, as it is told when it ends.

    Arguments:
        result: how it went.
        number: which run it was, from 1.
        of: how many there are.
        rate: seconds a run until now.
    """
    what = f"{result.fault} + {result.besides}" if result.besides else result.fault
    verdict = f"FAILED {result.findings} {result.stuck}".strip() if result.failed else result.note or "ok"
    left = rate * (of - number) / 60
    return (
        f"[{number:4}/{of}] seed {result.seed} {result.door:5} {what:44} {result.acknowledged:3} acknowledged"
        f" {result.refused:3} refused, back in {result.recovery:4.1f} s: {verdict}"
        f" | {rate:.1f} s a run, {left:.0f} min left"
    )


def _row(name: str, group: Sequence[Result]) -> tuple[str, ...]:
    numbers = (
        len(group),
        sum(one.acknowledged for one in group),
        *(sum(len(getattr(one.findings, kind)) for one in group) for kind in ("lost", "doubled", "changed", "strayed")),
        sum(bool(one.stuck) for one in group),
        sum(one.refused for one in group),
    )
    return (name, *map(str, numbers), f"{max(one.recovery for one in group):.1f} s")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell.ljust(width) if not at else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    )

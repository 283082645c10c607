"""``lightbox up``, ``down``, ``restart`` and ``status``: the stack as a whole."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from cli.output import CliError, err, human_bytes, out, print_json, print_next
from deploy.local.control import (
    NotStarted,
    PartStatus,
    StackStatus,
    follow_start,
    prepare,
    read_status,
    restart_part,
    start_supervisor,
    stop_supervisor,
)
from deploy.local.download import DownloadFailed
from deploy.local.home import Home, find_home

Json = Annotated[bool, typer.Option("--json", help="Write JSON, for machines.")]

_COLOURS = {"running": "green", "starting": "yellow", "waiting": "dim", "restarting": "red", "not ready": "red"}
_MARKS = {"running": "●", "starting": "◌", "waiting": "·", "restarting": "✖", "not ready": "▲"}


def up(json: Json = False) -> None:
    """Start everything on this machine, or see that it runs."""
    bring_up(quiet=json)
    home = find_home()
    status = read_status(home)
    if json:
        print_json(asdict(status))
        return
    memory = sum(part.memory for part in status.parts) + status.supervisor_memory
    out.print(f"[bold green]Lightbox is up[/] at [bold]{status.public_url}[/] ({human_bytes(memory)} of memory)")
    print_next(
        ("lightbox demo", "make two clinics and send them real studies"),
        ("lightbox tenant --help", "make a clinic of your own"),
        ("lightbox status", "see how each part is"),
        ("lightbox down", "stop everything; the data stay"),
    )


def bring_up(*, quiet: bool = False) -> Home:
    """Fetches what is missing, starts the supervisor and waits until all parts run.

    Arguments:
        quiet: show nothing meanwhile.

    Raises:
        CliError: it did not come up.
    """
    home = find_home()
    try:
        if home.supervisor_pid() is None:
            _fetch(quiet=quiet)
        start_supervisor(home)
        _show_start(home, quiet=quiet)
    except (DownloadFailed, FileNotFoundError, TimeoutError, ValueError) as error:
        raise CliError(str(error), "Then try again: lightbox up") from error
    except NotStarted as error:
        raise CliError(
            f"Lightbox did not come up: {error}", "Read more: lightbox status · lightbox logs supervisor"
        ) from error
    return home


def _fetch(*, quiet: bool) -> None:
    """Downloads with a bar each; nothing is shown when all is there."""
    columns = (TextColumn("  {task.description:<14}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet) as bars:
        shown: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bars.add_task(what, total=total)
            bars.update(shown[what], completed=done)

        prepare(advance)


def _show_start(home: Home, *, quiet: bool) -> None:
    """A line a part while it starts; on something that is no terminal, a line when it runs."""
    if quiet or not err.is_terminal:
        told: set[str] = set()
        for status in follow_start(home):
            for part in status.parts:
                if part.state == "running" and part.name not in told and not quiet:
                    err.print(f"  {part.name} runs", highlight=False)
                told |= {part.name} if part.state == "running" else set()
        return
    with Live(console=err, refresh_per_second=8, transient=True) as live:
        for status in follow_start(home):
            live.update(_start_table(status))


def _start_table(status: StackStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    for part in status.parts:
        colour = _COLOURS.get(part.state, "white")
        note = part.message if part.state != "running" else ""
        table.add_row(f"  [{colour}]{_MARKS.get(part.state, ' ')}[/]", part.name, f"[{colour}]{part.state}[/]", note)
    if not status.parts:
        table.add_row("  ◌", "supervisor", "[yellow]starting[/]")
    return table


def down(json: Json = False) -> None:
    """Stop everything; the data stay."""
    home = find_home()
    try:
        if json:
            stopped = stop_supervisor(home)
        else:
            with err.status("stopping, the servers last"):
                stopped = stop_supervisor(home)
    except TimeoutError as error:
        raise CliError(str(error), "Try again: lightbox down") from error
    if json:
        print_json({"stopped": stopped})
        return
    out.print("Lightbox is down; the data stay in " + str(home.folder) if stopped else "Nothing was running.")
    print_next(("lightbox up", "start it again"))


def restart(
    part: Annotated[str, typer.Argument(help="A part, as `lightbox status` names it.")],
    json: Json = False,
) -> None:
    """Stop one part; the supervisor starts it anew."""
    home = find_home()
    if not restart_part(home, part):
        names = ", ".join(p.name for p in read_status(home, memory=False).parts)
        raise CliError(f"No part {part!r} runs here.", f"Parts: {names}" if names else "Start: lightbox up")
    if json:
        print_json({"restarted": part})
    else:
        out.print(f"{part} was asked to end and starts anew.")
        print_next(("lightbox status", "see how it is"))


def status(json: Json = False) -> None:
    """Show how each part is. The exit code is 0 when all is well, 1 when not, 3 when nothing runs."""
    home = find_home()
    found = read_status(home)
    if json:
        print_json(asdict(found))
    else:
        _print_status(found, home)
    if not found.is_well:
        raise typer.Exit(3 if found.phase == "stopped" else 1)


def _print_status(found: StackStatus, home: Home) -> None:
    if found.phase == "stopped":
        out.print(f"Lightbox is stopped ({home.folder}).")
        print_next(("lightbox up", "start it"))
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column, justify in (("", "left"), ("part", "left"), ("health", "left"), ("pid", "right"), ("port", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for column in ("memory", "since", "restarts"):
        table.add_column(column, justify="right")
    table.add_column("")
    for part in found.parts:
        table.add_row(*_row(part))
    out.print(table)
    memory = sum(part.memory for part in found.parts) + found.supervisor_memory
    out.print(
        f"\n{found.phase} at [bold]{found.public_url}[/] · {human_bytes(memory)} of memory · data in {home.folder}",
        highlight=False,
        soft_wrap=True,
    )
    if not found.is_well:
        worst = next((part.name for part in found.parts if part.state != "running"), "supervisor")
        print_next((f"lightbox logs {worst}", "see what it says"))


def _row(part: PartStatus) -> tuple[str, ...]:
    colour = _COLOURS.get(part.state, "white")
    return (
        f"[{colour}]{_MARKS.get(part.state, ' ')}[/]",
        part.name,
        f"[{colour}]{part.state}[/]",
        str(part.pid or ""),
        f"{part.port}, DICOM {part.dicom_port}" if part.dicom_port else str(part.port),
        human_bytes(part.memory) if part.memory else "",
        _ago(part.since),
        str(part.restarts or ""),
        part.message if part.state != "running" else "",
    )


def _ago(since: str) -> str:
    """How long ago, for people."""
    if not since:
        return ""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds())
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{max(seconds, 0)} s"

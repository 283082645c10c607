"""``lightbox send``: sends files and folders to an edge gateway, or to any other storage SCP."""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from cli.output import CliError, out, print_json, print_next
from cli.storage_scu import DicomFile, NotConnected, Peer, Report, find_files, send_files
from deploy.local.home import find_home
from deploy.local.service_parts import Edge, known_edges

_SHOWN = 20


def send(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders; folders are searched through.")],
    to: Annotated[str, typer.Option(help="HOST:PORT of the receiver; an edge of this stack by default.")] = "",
    edge: Annotated[str, typer.Option(help="The edge to send to: TENANT or TENANT-NAME.")] = "",
    called: Annotated[str, typer.Option(help="AE title of the receiver.")] = "",
    aet: Annotated[str, typer.Option(help="Our own AE title.")] = "LIGHTBOX",
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Associations at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send DICOM files and folders by C-STORE, byte for byte as they are."""
    try:
        peer = _choose_peer(to, edge, called, aet)
        files, others = find_files(paths)
    except FileNotFoundError as error:
        raise CliError(str(error)) from error
    if not files:
        raise CliError(f"None of the {len(others)} files found is a DICOM file.")
    try:
        report = send_with_progress(files, peer, out, parallel=parallel, quiet=as_json)
    except NotConnected as error:
        raise CliError(
            f"{error}.", "`lightbox status` shows whether the edge runs, `lightbox edge list` where it listens."
        ) from error
    if as_json:
        print_json(_as_json(report, others, peer))
    else:
        _print_report(out, report, others, peer)
    if report.failures:
        raise typer.Exit(1)


def send_with_progress(
    files: list[DicomFile],
    peer: Peer,
    console: Console,
    *,
    parallel: int = 1,
    quiet: bool = False,
    title: str = "sending",
) -> Report:
    """Sends with a progress bar: count, bytes, rate, time left.

    Arguments:
        files: what to send.
        peer: to whom.
        console: where the bar goes.
        parallel: associations at once.
        quiet: show none.
        title: what stands before the bar.

    Raises:
        NotConnected: no association could be made.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[files]}/{task.fields[count]}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    shown: AbstractContextManager[Any] = nullcontext() if quiet else bar
    with shown:
        task: TaskID = bar.add_task(title, total=sum(file.size for file in files), files=0, count=len(files))
        dealt_with = 0

        def progress(file: DicomFile, _: bool) -> None:
            nonlocal dealt_with
            dealt_with += 1
            bar.update(task, advance=file.size, files=dealt_with)

        return send_files(files, peer, parallel=parallel, progress=progress)


def counting_progress(console: Console) -> Progress:
    """A progress bar that counts things."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )


def peer_of(edge: Edge, calling: str = "LIGHTBOX") -> Peer:
    """An edge of this machine as somebody to send to."""
    return Peer("127.0.0.1", edge.dimse_port, edge.ae_title, calling)


def find_edge(wanted: str) -> Edge:
    """The edge of this stack with that name: TENANT, TENANT-NAME or TENANT/NAME; the first one by default.

    Raises:
        CliError: there is none.
    """
    edges = known_edges(find_home())
    if not edges:
        raise CliError("This stack has no edge yet.", "Add one: lightbox edge add TENANT")
    if not wanted:
        return edges[0]
    for edge in edges:
        if wanted in {edge.tenant, f"{edge.tenant}-{edge.name}", f"{edge.tenant}/{edge.name}", edge.part_name}:
            return edge
    names = ", ".join(f"{edge.tenant}-{edge.name}" for edge in edges)
    raise CliError(f"There is no edge {wanted!r}.", f"Known are: {names}")


def _choose_peer(to: str, edge: str, called: str, calling: str) -> Peer:
    if not to:
        peer = peer_of(find_edge(edge), calling)
        return Peer(peer.host, peer.port, called or peer.called, calling)
    host, colon, port = to.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise CliError(f"--to takes HOST:PORT, such as 192.168.1.20:11112, not {to!r}.")
    return Peer(host.strip("[]"), int(port), called or "ANY-SCP", calling)


def _as_json(report: Report, others: list[Path], peer: Peer) -> dict[str, object]:
    return {
        "to": {"host": peer.host, "port": peer.port, "called": peer.called, "calling": peer.calling},
        "sent": report.sent,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 3),
        "warnings": report.warnings,
        "refused": [
            {"path": str(one.path), "status": f"{one.status:04X}" if one.status >= 0 else None, "reason": one.reason}
            for one in report.failures
        ],
        "not_dicom": [str(path) for path in others],
    }


def _print_report(console: Console, report: Report, others: list[Path], peer: Peer) -> None:
    table = Table(title=f"to {peer.called} at {peer.host}:{peer.port}", title_justify="left")
    table.add_column("outcome")
    table.add_column("files", justify="right")
    rate = report.sent / report.seconds if report.seconds else 0.0
    amount = f"{report.bytes / 1e6:.1f} MB in {report.seconds:.1f} s, {rate:.0f} files a second"
    table.add_row(f"[green]sent[/green] ({amount})", str(report.sent))
    if report.warnings:
        table.add_row("[yellow]of them with a warning[/yellow]", str(report.warnings))
    for reason, count in Counter(one.reason for one in report.failures).most_common():
        table.add_row(f"[red]refused[/red]: {escape(reason)}", str(count))
    if others:
        table.add_row("[dim]left out: not DICOM[/dim]", str(len(others)))
    console.print(table)
    for failure in report.failures[:_SHOWN]:
        console.print(
            f"  [red]{escape(str(failure.path))}[/red]: {escape(failure.reason)}", highlight=False, soft_wrap=True
        )
    if len(report.failures) > _SHOWN:
        console.print(f"  … and {len(report.failures) - _SHOWN} more; --json lists them all")
    elif not report.failures:
        print_next(("lightbox edge list", "see what still waits for the cloud"))

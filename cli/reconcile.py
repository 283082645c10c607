"""``lightbox reconcile``: whether buckets and catalog say the same."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from cli.output import CliError, err, out, print_json, print_next
from cli.stack_client import Stack
from deploy.local.home import CHECKOUT


def reconcile(
    tenant: Annotated[list[str] | None, typer.Argument(help="Only these clinics; all by default.")] = None,
    grace: Annotated[float | None, typer.Option(min=0, help="Seconds that indexing may take; 900 by default.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Packs a second that are looked at one by one.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compare buckets with the catalog. What was stored and not announced is announced again; nothing is deleted."""
    stack = Stack.find()
    arguments = [word for name in tenant or [] for word in ("--tenant", name)]
    arguments += ["--rate", str(rate), *(["--grace", str(grace)] if grace is not None else [])]
    command = [sys.executable, "-m", "services", "ingest_gateway", "reconcile", *arguments, "--json"]
    environment = {**os.environ, **stack.service_environment("ingest_gateway")}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reports = follow(process.stdout, err)
    if as_json:
        print_json({"tenants": reports})
    else:
        _tell(reports)
    if process.returncode and not any(report["missing"] or report["unusable"] for report in reports):
        raise CliError("It broke off; the lines above say why.", "Run it again: lightbox reconcile")
    if process.returncode:
        raise CliError(
            "Not everything is where it should be. Nothing was deleted.",
            "What is lost may be had again from its sender, or from a backup of the bucket.",
        )


def follow(told: Iterable[str], console: Console) -> list[dict[str, Any]]:
    """Draws a line for each clinic while it is looked at.

    Arguments:
        told: lines of JSON, as ``python -m services ingest_gateway reconcile --json`` writes them.
        console: where the lines go.

    Returns:
        the last word on each clinic.
    """
    reports: dict[str, dict[str, Any]] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as lines:
        tasks = {}
        for line in told:
            report = json.loads(line)
            name = report["tenant"]
            reports[name] = report
            if name not in tasks:
                tasks[name] = lines.add_task(name)
            looked = f"{report['bucket']} packs in the bucket, {report['catalog']} in the catalog"
            lines.update(tasks[name], description=f"{name}: {looked}")
    return list(reports.values())


def _tell(reports: list[dict[str, Any]]) -> None:
    table = Table("clinic", "in the bucket", "in the catalog", "announced again", "lost", "unreadable")
    for report in reports:
        lost = f"[red]{len(report['missing'])}[/]" if report["missing"] else "0"
        unreadable = f"[red]{len(report['unusable'])}[/]" if report["unusable"] else "0"
        table.add_row(
            report["tenant"],
            str(report["bucket"]),
            str(report["catalog"]),
            str(len(report["announced"])),
            lost,
            unreadable,
        )
    out.print(table)
    for report in reports:
        for what, keys in (("lost", report["missing"]), ("unreadable", report["unusable"])):
            for key in keys[:20]:
                out.print(f"  {report['tenant']} {what}: {key}", soft_wrap=True, highlight=False)
    if any(report["announced"] for report in reports):
        print_next(("lightbox events dead-letters instances.stored", "see whether what was announced can be indexed"))

"""``lightbox reindex``: the catalog, built anew from the object store."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cli.output import CliError, err, print_next
from cli.stack_client import Stack
from deploy.local.home import CHECKOUT


def reindex(
    tenant: Annotated[list[str] | None, typer.Argument(help="Only these clinics; all by default.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Empty the catalog of these clinics first.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Only packs that the catalog does not have.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --drop.")] = False,
) -> None:
    """Rebuild the catalog from the buckets alone. It may be broken off and started again."""
    stack = Stack.find()
    if drop and not yes:
        whose = ", ".join(tenant) if tenant else "every clinic"
        typer.confirm(f"Studies of {whose} can't be found until they are indexed again. Go on?", abort=True)
    arguments = [word for name in tenant or [] for word in ("--tenant", name)]
    arguments += ["--drop"] * drop + ["--missing"] * missing
    command = [sys.executable, "-m", "services", "indexing", "reindex", *arguments, "--json"]
    environment = {**os.environ, **stack.service_environment("indexing")}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        show(process.stdout, err)
    if process.returncode:
        raise CliError("Not everything could be indexed; the lines above say what.", "Run it again: lightbox reindex")
    err.print("[bold green]The catalog is complete.[/]")
    print_next((stack.public_url, "look at the studies"))


def show(told: Iterable[str], console: Console) -> None:
    """Draws a bar for each clinic: packs done, instances a second, time left.

    Arguments:
        told: lines of JSON, as ``python -m services indexing reindex --json`` writes them.
        console: where the bars go.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("packs, {task.fields[instances]} instances, {task.fields[rate]}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}
        for line in told:
            now = json.loads(line)
            tenant = now["tenant"]
            if tenant not in tasks:
                tasks[tenant] = bars.add_task(tenant, total=now["total"], instances=0, rate=0)
            task = bars.tasks[bars.task_ids.index(tasks[tenant])]
            rate = round(now["instances"] / task.elapsed) if task.elapsed else 0
            bars.update(tasks[tenant], completed=now["packs"], instances=now["instances"], rate=rate)

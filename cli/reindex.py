"""``lightbox reindex``: the catalog, built anew from the object store."""

import os
import subprocess
import sys
from typing import Annotated

import typer

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
    done = subprocess.run(
        [sys.executable, "-m", "services", "indexing", "reindex", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **stack.service_environment("indexing")},
        check=False,
    )
    if done.returncode:
        raise CliError("Not everything could be indexed; the lines above say what.", "Run it again: lightbox reindex")
    err.print("[bold green]The catalog is complete.[/]")
    print_next((stack.public_url, "look at the studies"))

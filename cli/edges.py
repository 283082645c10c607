"""``lightbox edge``: the edge gateways that run on this machine."""

import re
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from cli.identity_api import IdentityApi, IdentityError
from cli.output import CliError, out, print_json, print_next
from cli.send import find_edge
from deploy.local.home import Home, find_home
from deploy.local.service_parts import Edge, add_edge, known_edges, remove_edge

EDGE_SCOPES = ["dicom:write"]
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")
_AE_TITLE = re.compile(r"^[!-\[\]-~]{1,16}$")

app = typer.Typer(help="Edge gateways of this machine.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(help="Whose images it sends.")],
    name: Annotated[str, typer.Argument(help="Its name within the tenant.")] = "edge",
    ae_title: Annotated[str, typer.Option(help="The AE title that scanners call.")] = "",
    port: Annotated[int, typer.Option(help="Where scanners send to; a free port by default.")] = 0,
    as_json: Json = False,
) -> None:
    """Add an edge gateway: a client of the tenant, and a part that starts by itself."""
    home = find_home()
    title = ae_title or tenant.upper()[:16]
    if not _NAME.match(name):
        raise CliError(f"{name!r} is no name: small letters, digits and hyphens, a letter first.")
    if not _AE_TITLE.match(title):
        raise CliError(f"{title!r} is no AE title: 1 to 16 characters without spaces and backslashes.")
    if any(edge.tenant == tenant and edge.name == name for edge in known_edges(home)):
        raise CliError(f"{tenant} has an edge {name} already.", "Look: lightbox edge list")
    try:
        edge = make_edge(home, tenant, name, title, port or None)
    except IdentityError as error:
        if error.status != 404:
            raise
        raise CliError(f"There is no clinic {tenant}.", f"Make it first: lightbox tenant create {tenant}") from error
    if as_json:
        print_json({"tenant": tenant, "name": name, "ae_title": edge.ae_title, "dimse_port": edge.dimse_port})
        return
    out.print(f"[green]Added[/] {edge.part_name}: {edge.ae_title} at 127.0.0.1:{edge.dimse_port}", highlight=False)
    print_next((f"lightbox send FOLDER --edge {tenant}-{name}", "send images through it"))


def make_edge(home: Home, tenant: str, name: str, ae_title: str, dimse_port: int | None = None) -> Edge:
    """Makes an OAuth2 client for an edge and writes the edge down, upon which the supervisor starts it.

    Arguments:
        home: the data folder.
        tenant: whose images it sends.
        name: its name within the tenant.
        ae_title: what scanners call.
        dimse_port: where they send to; a free port by default.

    Raises:
        IdentityError: there is no such tenant, or the stack is not up.
    """
    with IdentityApi.of_stack(home) as identity:
        client_id, secret = identity.create_client(tenant, f"edge-{name}"[:32], EDGE_SCOPES)
    return add_edge(
        home, tenant, name, client_id=client_id, client_secret=secret, ae_title=ae_title, dimse_port=dimse_port
    )


@app.command("list")
def list_edges(as_json: Json = False) -> None:
    """List the edges, where they listen, and what waits in their spools."""
    edges = known_edges(find_home())
    reports = [(edge, spool_status(edge)) for edge in edges]
    if as_json:
        print_json({"edges": [_as_json(edge, status) for edge, status in reports]})
        return
    if not edges:
        out.print("No edges yet.")
        print_next(("lightbox edge add TENANT", "add one"))
        return
    table = Table()
    for heading in ("tenant", "name", "AE title", "address", "waiting", "refused", "line to the cloud"):
        table.add_column(
            heading,
            justify="right" if heading in ("waiting", "refused") else "left",
            overflow="fold",
            no_wrap=heading == "address",
        )
    for edge, status in reports:
        table.add_row(edge.tenant, edge.name, edge.ae_title, f"127.0.0.1:{edge.dimse_port}", *_cells(status))
    out.print(table)
    for edge, status in reports:
        for one in (status or {}).get("refused_instances", [])[:5]:
            out.print(f"  {edge.part_name} {one['sop_instance_uid']}: {escape(one['reason'])}", soft_wrap=True)
    if any(status and status["refused"]["instances"] for _, status in reports):
        print_next(("lightbox edge retry TENANT-NAME", "let refused instances go again"))


@app.command()
def retry(
    edge: Annotated[str, typer.Argument(help="TENANT or TENANT-NAME; the first edge by default.")] = "",
    as_json: Json = False,
) -> None:
    """Let the instances that the cloud refused go again."""
    found = find_edge(edge)
    try:
        response = httpx.post(f"http://127.0.0.1:{found.port}/retry", timeout=10)
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise CliError(f"{found.part_name} does not answer: {error}", "Look: lightbox status") from error
    count = response.json()["instances"]
    if as_json:
        print_json({"instances": count})
    else:
        out.print(f"{count} instances go again.")
        print_next(("lightbox edge list", "see what waits"))


@app.command()
def remove(
    edge: Annotated[str, typer.Argument(help="TENANT-NAME.")],
    force: Annotated[bool, typer.Option(help="Even if instances wait in its spool.")] = False,
    as_json: Json = False,
) -> None:
    """Remove an edge and its client. Its spool stays where it is."""
    home = find_home()
    found = find_edge(edge)
    status = spool_status(found)
    left = status["waiting"]["instances"] + status["refused"]["instances"] if status else None
    if not force and left != 0:
        why = "it does not say what is in its spool" if left is None else f"{left} instances are still in its spool"
        raise CliError(f"{found.part_name} stays: {why}.", "Wait until the spool is empty, or use --force.")
    remove_edge(home, found.tenant, found.name)
    try:
        with IdentityApi.of_stack(home) as identity:
            identity.delete_client(found.tenant, found.client_id.partition(".")[2])
    except IdentityError as error:
        raise CliError(f"The edge is removed, its client {found.client_id} is not: {error}", error.help_text) from error
    if as_json:
        print_json({"removed": found.part_name, "spool": str(home.data(found.part_name))})
    else:
        out.print(f"Removed {found.part_name}; its spool stays in {home.data(found.part_name)}.", soft_wrap=True)


def spool_status(edge: Edge) -> dict[str, Any] | None:
    """What an edge says of itself; None when it does not answer."""
    try:
        response = httpx.get(f"http://127.0.0.1:{edge.port}/status", timeout=3)
        response.raise_for_status()
        status: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError):
        return None
    return status


def _cells(status: dict[str, Any] | None) -> tuple[str, str, str]:
    if status is None:
        return "?", "?", "[red]does not answer; see: lightbox status[/red]"
    refused = status["refused"]["instances"]
    line = "[green]ok[/green]" if status["line"] == "ok" else f"[yellow]{escape(status['line'])}[/yellow]"
    return str(status["waiting"]["instances"]), f"[red]{refused}[/red]" if refused else "0", line


def _as_json(edge: Edge, status: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "tenant": edge.tenant,
        "name": edge.name,
        "ae_title": edge.ae_title,
        "host": "127.0.0.1",
        "dimse_port": edge.dimse_port,
        "status": status,
    }

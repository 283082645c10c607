"""``lightbox client``: machines that get tokens with a secret (OAuth 2.0 client credentials)."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from cli.output import CliError, out, print_json, print_next
from cli.stack_client import Stack
from cli.tenants import Json, Tenant, all_pages
from libs.auth import SCOPES, TENANTS_ADMIN

app = typer.Typer(
    help="Clients of a clinic: programs that use the API. An edge gets its own from 'lightbox edge add'.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The client's name within the clinic.")]


@app.command()
def add(
    tenant: Tenant,
    name: Name,
    scope: Annotated[list[str], typer.Option(help=f"One of {', '.join(sorted(SCOPES))}; may be given again.")],
    as_json: Json = False,
) -> None:
    """Add a client. Its secret is shown once."""
    allowed = {TENANTS_ADMIN} if tenant == "system" else SCOPES - {TENANTS_ADMIN}
    for one in scope:
        if one not in allowed:
            raise CliError(f"{one!r} is no scope for {tenant}.", f"Scopes there: {', '.join(sorted(allowed))}")
    stack = Stack.find()
    _show(stack, stack.call("POST", _path(tenant), body={"name": name, "scopes": scope}), as_json=as_json)


@app.command("list")
def list_clients(tenant: Tenant, as_json: Json = False) -> None:
    """List the clients of a clinic."""
    clients = all_pages(Stack.find(), _path(tenant), "clients")
    if as_json:
        print_json({"clients": [{k: v for k, v in client.items() if k != "client_secret"} for client in clients]})
        return
    if not clients:
        out.print(f"{tenant} has no clients yet.")
        print_next((f"lightbox client add {tenant} NAME --scope dicom:read", "add one"))
        return
    table = Table("client id", "scopes", "since")
    for client in clients:
        table.add_row(client["client_id"], " ".join(client["scopes"]), client["created_at"][:10])
    out.print(table)
    print_next((f"lightbox client rotate {tenant} NAME", "replace a secret"))


@app.command()
def rotate(tenant: Tenant, name: Name, as_json: Json = False) -> None:
    """Give a client a new secret, shown once; the old one ends at once."""
    stack = Stack.find()
    _show(stack, stack.call("POST", f"{_path(tenant)}/{quote(name, safe='')}/rotate"), as_json=as_json)


@app.command()
def remove(tenant: Tenant, name: Name, as_json: Json = False) -> None:
    """Remove a client. Its tokens end within ten minutes."""
    Stack.find().call("DELETE", f"{_path(tenant)}/{quote(name, safe='')}")
    if as_json:
        print_json({"removed": f"{tenant}.{name}"})
        return
    out.print(f"Removed {tenant}.{name}.", highlight=False)
    print_next((f"lightbox client list {tenant}", "see the others"))


def _path(tenant: str) -> str:
    return f"/api/identity/tenants/{quote(tenant, safe='')}/clients"


def _show(stack: Stack, client: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(client)
        return
    out.print(f"client id      [bold]{client['client_id']}[/]", highlight=False)
    out.print(f"client secret  [bold]{client['client_secret']}[/]   (shown this once)", highlight=False, soft_wrap=True)
    out.print(f"scopes         {' '.join(client['scopes'])}", highlight=False)
    print_next((f"curl -d grant_type=client_credentials -u ID:SECRET {stack.public_url}/auth/token", "get a token"))

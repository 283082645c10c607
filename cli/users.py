"""``lightbox user``: who logs in to a clinic."""

import sys
from getpass import getpass
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import CliError, out, print_json, print_next
from cli.stack_client import Stack
from cli.tenants import Json, Tenant, all_pages
from libs.auth import OPERATOR, ROLES

app = typer.Typer(help="Users of a clinic: add, list, disable and enable them.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The user's name, in lower case.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
_MAX_PASSWORD = 1024


@app.command()
def add(
    tenant: Tenant,
    name: Name,
    role: Annotated[list[str], typer.Option(help=f"One of {', '.join(sorted(ROLES))}; may be given again.")],
    display_name: Annotated[str, typer.Option(help="The name that people read.")] = "",
    password_stdin: FromStdin = False,
    as_json: Json = False,
) -> None:
    """Add a user. Without --password-stdin a password is generated and shown once."""
    _check_roles(role, tenant)
    body: dict[str, Any] = {"name": name, "display_name": display_name, "roles": role}
    if password_stdin:
        body["password"] = _password()
    stack = Stack.find()
    made = stack.call("POST", _path(tenant), body=body)
    if as_json:
        print_json(made)
        return
    out.print(f"Added [bold]{escape(made['display_name'])}[/] ({made['name']}) to {tenant}.", highlight=False)
    _show_password(made)
    print_next(
        (f"{stack.public_url}/auth/login/{tenant}", "log in here"),
        (f"lightbox user list {tenant}", "see all users"),
    )


@app.command("list")
def list_users(tenant: Tenant, as_json: Json = False) -> None:
    """List the users of a clinic."""
    users = all_pages(Stack.find(), _path(tenant), "users")
    if as_json:
        print_json({"users": [{key: value for key, value in user.items() if key != "password"} for user in users]})
        return
    if not users:
        out.print(f"{tenant} has no users yet.")
        print_next((f"lightbox user add {tenant} NAME --role radiologist", "add one"))
        return
    table = Table("name", "display name", "roles", "state", "since")
    for user in users:
        state = "[green]active[/]" if user["active"] else "[red]disabled[/]"
        row = (user["name"], escape(user["display_name"]), ", ".join(user["roles"]), state, user["created_at"][:10])
        table.add_row(*row)
    out.print(table)
    print_next((f"lightbox user reset-password {tenant} NAME", "give somebody a new password"))


@app.command()
def disable(tenant: Tenant, name: Name, as_json: Json = False) -> None:
    """Disable a user: open sessions end."""
    _change(tenant, name, {"active": False}, "is disabled", as_json=as_json)


@app.command()
def enable(tenant: Tenant, name: Name, as_json: Json = False) -> None:
    """Let a disabled user log in again."""
    _change(tenant, name, {"active": True}, "can log in again", as_json=as_json)


@app.command("reset-password")
def reset_password(tenant: Tenant, name: Name, password_stdin: FromStdin = False, as_json: Json = False) -> None:
    """Give a user a new password: generated and shown once, or read from standard input. Open sessions end."""
    body = {"password": _password()} if password_stdin else {"reset_password": True}
    _change(tenant, name, body, "has a new password", as_json=as_json)


def _path(tenant: str) -> str:
    return f"/api/identity/tenants/{quote(tenant, safe='')}/users"


def _change(tenant: str, name: str, body: dict[str, Any], what: str, *, as_json: bool) -> None:
    changed = Stack.find().call("PATCH", f"{_path(tenant)}/{quote(name, safe='')}", body=body)
    if as_json:
        print_json(changed)
        return
    out.print(f"[bold]{escape(changed['display_name'])}[/] ({changed['name']}) {what}.", highlight=False)
    _show_password(changed)
    print_next((f"lightbox user list {tenant}", "see all users"))


def _show_password(user: dict[str, Any]) -> None:
    if user.get("password"):
        out.print(f"Password, shown this once: [bold]{user['password']}[/]", highlight=False)


def _check_roles(roles: list[str], tenant: str) -> None:
    allowed = {OPERATOR} if tenant == "system" else set(ROLES) - {OPERATOR}
    for role in roles:
        if role not in allowed:
            raise CliError(f"{role!r} is no role in {tenant}.", f"Roles there: {', '.join(sorted(allowed))}")


def _password() -> str:
    """The first line of standard input, or what is typed without echo at a terminal."""
    if sys.stdin.isatty():
        return getpass("Password: ")
    password = sys.stdin.readline(4 * _MAX_PASSWORD).rstrip("\r\n")
    if not password:
        raise CliError("Standard input holds no password.", 'Try: printf %s "$PASSWORD" | lightbox user add …')
    return password

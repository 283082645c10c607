"""``lightbox tenant``: the clinics of this installation."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import CliError, out, print_json, print_next
from cli.stack_client import Stack

app = typer.Typer(help="Clinics: make, list, set, suspend and resume them.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Tenant = Annotated[str, typer.Argument(help="The clinic's short name, such as north.")]
_PATH = "/api/identity/tenants"


class Duplicates(StrEnum):
    """What is done with an instance whose SOP Instance UID is taken by other bytes."""

    KEEP_FIRST = "keep-first"
    KEEP_LATEST = "keep-latest-as-version"
    REFUSE = "refuse"


_IN_WORDS = {
    "keep-first": "what was there is shown, the newcomer is kept as a version",
    "keep-latest-as-version": "the newcomer is shown, what was there is kept as a version",
    "refuse": "the newcomer is refused and goes to quarantine",
}


def all_pages(stack: Stack, path: str, key: str) -> list[dict[str, Any]]:
    """All items of a list of the identity API, page after page.

    Arguments:
        stack: the stack.
        path: the path of the list.
        key: the name of the list in the answer.

    Raises:
        CliError: the answer is an error.
    """
    items: list[dict[str, Any]] = []
    after = ""
    with stack.api() as api:
        while True:
            page = api.ask("GET", f"{path}?limit=1000&after={after}")
            items += page[key]
            if not page["next"]:
                return items
            after = page["next"]


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="2 to 32 lower-case letters, digits and hyphens; it never changes.")],
    name: Annotated[str, typer.Option(help="The name that people read; the short name by default.")] = "",
    as_json: Json = False,
) -> None:
    """Make a clinic."""
    stack = Stack.find()
    made = stack.call("POST", _PATH, body={"id": tenant, "name": name or tenant})
    if as_json:
        print_json(made)
        return
    out.print(f"Made the clinic [bold]{escape(made['name'])}[/] ({made['id']}).", highlight=False)
    print_next(
        (f"lightbox user add {tenant} NAME --role radiologist", "let somebody log in"),
        (f"lightbox edge add {tenant}", "receive images from its scanners"),
        (f"{stack.public_url}/auth/login/{tenant}", "its log-in page"),
    )


@app.command("list")
def list_tenants(as_json: Json = False) -> None:
    """List the clinics."""
    tenants = all_pages(Stack.find(), _PATH, "tenants")
    if as_json:
        print_json({"tenants": tenants})
        return
    table = Table("short name", "name", "state", "duplicates", "since")
    for one in tenants:
        state = "[green]active[/]" if one["state"] == "active" else f"[red]{one['state']}[/]"
        table.add_row(one["id"], escape(one["name"]), state, one["duplicates"], one["created_at"][:10])
    out.print(table)
    print_next(("lightbox tenant create ID --name NAME", "make another one"))


@app.command()
def show(tenant: Tenant, as_json: Json = False) -> None:
    """Show a clinic and how its images are stored."""
    _tell(Stack.find().call("GET", f"{_PATH}/{quote(tenant, safe='')}"), as_json=as_json)


@app.command("set")
def set_rules(
    tenant: Tenant,
    name: Annotated[str | None, typer.Option(help="The name that people read.")] = None,
    duplicates: Annotated[
        Duplicates | None, typer.Option(help="What is done with an image whose UID is taken by other bytes.")
    ] = None,
    requests_at_once: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Uploads under way at once; 0 for the installation's limit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a clinic's name or how its images are stored. What was stored before stays as it is."""
    given = {"name": name, "duplicates": duplicates and duplicates.value, "requests_at_once": requests_at_once}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise CliError("Nothing is to be changed.", "See what can be: lightbox tenant set --help")
    _tell(Stack.find().call("PATCH", f"{_PATH}/{quote(tenant, safe='')}", body=body), as_json=as_json)


def _tell(tenant: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
        return
    table = Table(box=None, show_header=False)
    at_once = tenant["requests_at_once"] or "as the installation is set"
    for label, value in (
        ("short name", tenant["id"]),
        ("name", escape(tenant["name"])),
        ("state", tenant["state"]),
        ("since", tenant["created_at"][:10]),
        ("duplicates", f"{tenant['duplicates']}: {_IN_WORDS[tenant['duplicates']]}"),
        ("uploads at once", str(at_once)),
    ):
        table.add_row(label, value)
    out.print(table)


@app.command()
def suspend(tenant: Tenant, as_json: Json = False) -> None:
    """Suspend a clinic: nobody of it logs in, its edges wait. Nothing is deleted."""
    _set_state(tenant, "suspended", as_json=as_json)


@app.command()
def resume(tenant: Tenant, as_json: Json = False) -> None:
    """Let a suspended clinic work again."""
    _set_state(tenant, "active", as_json=as_json)


def _set_state(tenant: str, state: str, *, as_json: bool) -> None:
    changed = Stack.find().call("PATCH", f"{_PATH}/{quote(tenant, safe='')}", body={"state": state})
    if as_json:
        print_json(changed)
        return
    out.print(f"[bold]{escape(changed['name'])}[/] ({changed['id']}) is {changed['state']}.", highlight=False)
    if state == "suspended":
        out.print("Tokens given out before end within ten minutes.", style="dim")
        print_next((f"lightbox tenant resume {tenant}", "undo it"))
    else:
        print_next((f"lightbox user list {tenant}", "see who can log in"))

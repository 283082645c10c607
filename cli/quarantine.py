"""``lightbox quarantine``: what was refused and is kept until somebody decides about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from cli.identity_api import IdentityApi, IdentityError
from cli.output import CliError, err, human_bytes, out, print_json, print_next
from cli.stack_client import Stack
from cli.tenants import Json, Tenant
from libs.auth import QUARANTINE_ADMIN

app = typer.Typer(
    help="What was refused, kept until somebody decides about it: list, show, download, release, discard.",
    no_args_is_help=True,
)
EntryId = Annotated[str, typer.Argument(help="The entry, or as many first characters of it as tell it from others.")]
_PATH = "/api/ingest/quarantine"
_CLIENT = "lightbox-cli"
_LOOK = "lightbox quarantine list"


class _Caretaker:
    """The API of one tenant's quarantine, with a client of that tenant: an operator's token holds for no tenant."""

    def __init__(self, stack: Stack, api: IdentityApi, token: str) -> None:
        self._stack = stack
        self._api = api
        self._token = token

    def ask(self, method: str, path: str) -> Any:
        """Calls the API below the quarantine."""
        return self._api.ask(method, f"{_PATH}{path}", token=self._token)

    def entries(self) -> list[dict[str, Any]]:
        """All entries, the newest first."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.ask("GET", f"?limit=1000&after={after}")
            found += page["entries"]
            if not page["next"]:
                return sorted(found, key=lambda entry: str(entry["received"]), reverse=True)
            after = page["next"]

    def find(self, entry: str) -> str:
        """The whole identifier of an entry.

        Raises:
            CliError: there is none, or more than one begins so.
        """
        if len(entry) == 64:
            return entry
        fitting = [found["id"] for found in self.entries() if found["id"].startswith(entry.lower())]
        if len(fitting) != 1:
            raise CliError(f"{len(fitting)} entries begin with {entry!r}.", f"Look: {_LOOK} TENANT")
        return str(fitting[0])

    def download(self, entry: str, target: Path) -> int:
        """Writes the bytes of an entry to a new file; how many they were."""
        url = f"{self._stack.public_url}{_PATH}/{entry}/content"
        size = 0
        try:
            with httpx.stream("GET", url, headers={"Authorization": f"Bearer {self._token}"}, timeout=60) as answer:
                if not answer.is_success:
                    raise CliError(f"{url} answers {answer.status_code}", f"Look: {_LOOK} TENANT")
                with target.open("xb") as file:
                    for piece in answer.iter_bytes():
                        size += file.write(piece)
        except FileExistsError:
            raise CliError(f"{target} is there already.", "Name another file: --to FILE") from None
        except (httpx.HTTPError, OSError) as error:
            raise CliError(f"The download broke off: {error}", "Remove the file and try again.") from error
        return size


@contextmanager
def _caretaker(tenant: str) -> Iterator[_Caretaker]:
    stack = Stack.find()
    with stack.api() as api:
        try:
            client_id, secret = api.create_client(tenant, _CLIENT, [QUARANTINE_ADMIN])
        except IdentityError as error:
            if error.status != 404:
                raise
            raise CliError(f"There is no clinic {tenant}.", "Look: lightbox tenant list") from error
        try:
            yield _Caretaker(stack, api, api.token(client_id, secret))
        finally:
            api.delete_client(tenant, _CLIENT)


@app.command("list")
def list_entries(
    tenant: Tenant,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List what is in a clinic's quarantine, the newest first."""
    with _caretaker(tenant) as caretaker:
        entries = caretaker.entries()
    if as_json:
        print_json({"entries": entries[:limit], "total": len(entries)})
        return
    if not entries:
        out.print(f"Nothing is in the quarantine of {tenant}.")
        return
    table = Table("entry", "received", "size", "from", "why", box=None, header_style="bold")
    for entry in entries[:limit]:
        why = f"{entry['code']:04X} {escape(entry['reason'])}"
        size = human_bytes(entry["size"])
        table.add_row(entry["id"][:12], entry["received"][:19], size, escape(entry["sender"]), why)
    out.print(table)
    total = human_bytes(sum(entry["size"] for entry in entries))
    out.print(f"{len(entries)} in all, {total}.", style="dim")
    print_next(
        (f"lightbox quarantine show {tenant} ENTRY", "see all that is known of one"),
        (f"lightbox quarantine release {tenant} ENTRY", "store it after all"),
        (f"lightbox quarantine discard {tenant} ENTRY --reason WHY", "remove it for good"),
    )


@app.command()
def show(tenant: Tenant, entry: EntryId, as_json: Json = False) -> None:
    """Show all that is known of an entry."""
    with _caretaker(tenant) as caretaker:
        found = caretaker.ask("GET", f"/{caretaker.find(entry)}")
    if as_json:
        print_json(found)
        return
    table = Table(box=None, show_header=False)
    for name, value in found.items():
        told = f"{value:04X}" if name == "code" else human_bytes(value) if name == "size" else str(value)
        if told:
            table.add_row(name.replace("_", " "), escape(told))
    out.print(table)
    print_next((f"lightbox quarantine download {tenant} {found['id'][:12]}", "get its bytes"))


@app.command()
def download(
    tenant: Tenant,
    entry: EntryId,
    to: Annotated[Path | None, typer.Option(help="The file to write; ENTRY.bin by default.")] = None,
    as_json: Json = False,
) -> None:
    """Get the bytes of an entry as they were received. Nobody has checked them: take care what opens them."""
    with _caretaker(tenant) as caretaker:
        found = caretaker.find(entry)
        target = to or Path(f"{found[:12]}.bin")
        size = caretaker.download(found, target)
    if as_json:
        print_json({"id": found, "file": str(target), "size": size})
    else:
        err.print(f"Wrote {human_bytes(size)} to {target}.", highlight=False, soft_wrap=True)


@app.command()
def release(
    tenant: Tenant,
    entry: EntryId,
    as_version: Annotated[
        bool, typer.Option("--as-version", help="Where its UID is taken, keep it as a version, whatever the policy.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Store an entry after all: its bytes as they are, by the present rules. What is refused again stays."""
    with _caretaker(tenant) as caretaker:
        found = caretaker.find(entry)
        stored = caretaker.ask("POST", f"/{found}/release?as_version={'true' if as_version else 'false'}")
    if as_json:
        print_json(stored)
        return
    out.print(f"[green]Stored[/] {stored['sop_instance_uid']} in study {stored['study_uid']}.", soft_wrap=True)
    if stored["warning"]:
        out.print(f"[yellow]Beware:[/] {escape(stored['warning'])}.", soft_wrap=True)


@app.command()
def discard(
    tenant: Tenant,
    entry: EntryId,
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit record.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove an entry for good. The reason goes into the audit record."""
    with _caretaker(tenant) as caretaker:
        found = caretaker.find(entry)
        if not yes:
            typer.confirm(f"{found[:12]} can't be had again afterwards. Discard it?", abort=True)
        query = str(httpx.QueryParams({"reason": reason}))
        caretaker.ask("POST", f"/{found}/discard?{query}")
    if as_json:
        print_json({"discarded": found})
    else:
        out.print(f"Discarded {found[:12]}.")

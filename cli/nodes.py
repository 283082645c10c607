"""``lightbox node``: the DICOM senders that a clinic lets in through the cloud's own DICOM door (DIMSE over TLS)."""

import shlex
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import CliError, out, print_json, print_next
from cli.stack_client import Stack
from cli.tenants import Json, Tenant, all_pages
from deploy.local.certificates import Credential, DimseTls
from deploy.local.home import find_home
from deploy.local.service_parts import DICOM_DOOR

app = typer.Typer(
    help="Nodes of a clinic: senders that store over DICOM with TLS, each known by its certificate.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The node's name within the clinic.")]
Calling = Annotated[list[str] | None, typer.Option(help="AE title it may call itself; may be given again.")]
Network = Annotated[list[str] | None, typer.Option(help="Network it may come from (CIDR); may be given again.")]


@app.command()
def add(
    tenant: Tenant,
    name: Name,
    certificate: Annotated[list[Path], typer.Option(help="PEM file of its client certificate; may be given again.")],
    called: Annotated[str, typer.Option(help="AE title that it calls; the clinic's own by default.")] = "",
    calling: Calling = None,
    network: Network = None,
    as_json: Json = False,
) -> None:
    """Let a sender in. Without --calling and --network it may call itself anything and come from anywhere."""
    body: dict[str, Any] = {
        "name": name,
        "certificates": [_read(path) for path in certificate],
        "calling_ae_titles": calling or [],
        "networks": network or [],
    }
    if called:
        body["called_ae_title"] = called
    stack = Stack.find()
    made = stack.call("POST", _path(tenant), body=body)
    if as_json:
        print_json(made)
        return
    where = f"127.0.0.1:{stack.ports[DICOM_DOOR]}" if DICOM_DOOR in stack.ports else "the ingest gateway's DICOM port"
    out.print(
        f"[bold]{name}[/] stores for {tenant} at {where} by the called AE title "
        f"[bold]{escape(made['called_ae_title'])}[/].",
        highlight=False,
        soft_wrap=True,
    )
    own = DimseTls.of(find_home()).client(name)
    steps = [(f"lightbox node list {tenant}", "see all nodes")]
    if own.certificate.resolve() in {path.resolve() for path in certificate}:
        steps.insert(0, (_storescu(stack, own, made), "send a file"))
    print_next(*steps)


@app.command("list")
def list_nodes(tenant: Tenant, as_json: Json = False) -> None:
    """List the nodes of a clinic."""
    nodes = all_pages(Stack.find(), _path(tenant), "nodes")
    if as_json:
        print_json({"nodes": nodes})
        return
    if not nodes:
        out.print(f"{tenant} has no nodes yet.")
        print_next((f"lightbox node add {tenant} NAME --certificate FILE.pem", "add one"))
        return
    table = Table("name", "calls", "calls itself", "from", "certificates", "state")
    for node in nodes:
        table.add_row(
            node["name"],
            escape(node["called_ae_title"]),
            escape(", ".join(node["calling_ae_titles"])) or "anything",
            ", ".join(node["networks"]) or "anywhere",
            "\n".join(_certificate(one) for one in node["certificates"]),
            "[green]enabled[/]" if node["enabled"] else "[red]disabled[/]",
        )
    out.print(table)
    print_next((f"lightbox node remove {tenant} NAME", "let one in no more"))


@app.command()
def change(
    tenant: Tenant,
    name: Name,
    certificate: Annotated[
        list[Path] | None, typer.Option(help="PEM file; all that are given replace those before.")
    ] = None,
    calling: Calling = None,
    network: Network = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it is let in.")] = None,
    as_json: Json = False,
) -> None:
    """Change a node: what is given replaces what there was. It holds within half a minute."""
    body: dict[str, Any] = {
        "certificates": [_read(path) for path in certificate] if certificate else None,
        "calling_ae_titles": calling,
        "networks": network,
        "enabled": enabled,
    }
    wanted = {key: value for key, value in body.items() if value is not None}
    if not wanted:
        raise CliError("There is nothing to change.", "See what can be: lightbox node change --help")
    changed = Stack.find().call("PATCH", f"{_path(tenant)}/{quote(name, safe='')}", body=wanted)
    if as_json:
        print_json(changed)
        return
    out.print(f"Changed {tenant}'s node {name}.", highlight=False)
    print_next((f"lightbox node list {tenant}", "see it"))


@app.command()
def remove(tenant: Tenant, name: Name, as_json: Json = False) -> None:
    """Remove a node. It is let in no more within half a minute."""
    Stack.find().call("DELETE", f"{_path(tenant)}/{quote(name, safe='')}")
    if as_json:
        print_json({"removed": name, "tenant": tenant})
        return
    out.print(f"Removed {tenant}'s node {name}.", highlight=False)
    print_next((f"lightbox node list {tenant}", "see the others"))


@app.command()
def certificate(
    name: Annotated[str, typer.Argument(help="What the certificate names; also the name of its files.")],
    days: Annotated[int, typer.Option(min=1, max=825, help="How long it is valid.")] = 90,
    as_json: Json = False,
) -> None:
    """Issue a client certificate from this machine's own authority, for trying it out."""
    home = find_home()
    if not home.secrets_file.exists():
        raise CliError(f"There is no stack in {home.folder}.", "Start one: lightbox up")
    try:
        made = DimseTls.of(home).issue(name, days)
    except ValueError as error:
        raise CliError(str(error)) from error
    tls = DimseTls.of(home)
    if as_json:
        print_json({"certificate": str(made.certificate), "key": str(made.key), "ca": str(tls.authority)})
        return
    for what, path in (("certificate", made.certificate), ("key", made.key), ("authority", tls.authority)):
        out.print(f"{what:<12} {path}", highlight=False, soft_wrap=True)
    print_next((f"lightbox node add TENANT {name} --certificate {shlex.quote(str(made.certificate))}", "let it in"))


def _path(tenant: str) -> str:
    return f"/api/identity/tenants/{quote(tenant, safe='')}/nodes"


def _read(path: Path) -> str:
    """The text of a PEM file.

    Raises:
        CliError: it can't be read, or is no PEM file.
    """
    try:
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise CliError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CliError(
            f"{path} is no PEM file.", f"Make one of DER: openssl x509 -inform der -in {path} -out node.pem"
        ) from None
    if "PRIVATE KEY" in text:
        raise CliError(f"{path} holds a private key, which stays with the device.", "Give its certificate only.")
    return text


def _certificate(one: dict[str, Any]) -> str:
    until = f" until {one['not_after'][:10]}" if one["not_after"] else ""
    return escape(f"{one['subject'] or 'SHA-256'} {one['sha256'][:16]}…{until}")


def _storescu(stack: Stack, own: Credential, node: dict[str, Any]) -> str:
    """The command by which DCMTK sends as this node."""
    calling = node["calling_ae_titles"][0] if node["calling_ae_titles"] else "STORESCU"
    authority = DimseTls.of(stack.home).authority
    return (
        f"storescu +tls {shlex.quote(str(own.key))} {shlex.quote(str(own.certificate))} +cf "
        f"{shlex.quote(str(authority))} -aet {shlex.quote(calling)} -aec {shlex.quote(node['called_ae_title'])} "
        f"127.0.0.1 {stack.ports.get(DICOM_DOOR, 2762)} FILE.dcm"
    )

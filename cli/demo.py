"""``lightbox demo``: two hospitals with users, edges and real studies, ready to be looked at."""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from cli.edges import make_edge, spool_status
from cli.identity_api import IdentityApi, IdentityError
from cli.output import CliError, err, out, print_json
from cli.send import counting_progress, peer_of, send_with_progress
from cli.storage_scu import DicomFile, NotConnected, find_files
from deploy.demo.assets import AssetsMissing, fetch_assets
from deploy.demo.people import EDGE_NAME, HOSPITALS, Hospital
from deploy.demo.studies import files_of
from deploy.demo.volumes import HEAD_STUDY
from deploy.local.control import NotStarted, follow_start, prepare, read_status, start_supervisor
from deploy.local.download import DownloadFailed
from deploy.local.home import Home, find_home, read_json, write_json
from deploy.local.service_parts import Edge, known_edges
from libs.dicom import read_header

_READER = "demo"
_EDGE_SECONDS = 60
_VISIBLE_SECONDS = 180
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class DemoFailed(Exception):
    """The demo can't go on; the text says why and what helps."""


@dataclass
class Notes:
    """What the demo has to remember: ``demo.json``, for the owner only.

    Attributes:
        passwords: by tenant and user.
        readers: secret of the client that looks whether the studies are there, by tenant.
    """

    passwords: dict[str, dict[str, str]] = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def file(home: Home) -> Path:
        """Where they are kept."""
        return home.folder / "demo.json"

    @classmethod
    def read(cls, home: Home) -> "Notes":
        """Those of an earlier run, or empty ones."""
        found = read_json(cls.file(home))
        return cls(found.get("passwords", {}), found.get("readers", {}))

    def write(self, home: Home) -> None:
        """Keeps them."""
        write_json(self.file(home), {"passwords": self.passwords, "readers": self.readers}, durable=True)


@dataclass
class Studies:
    """What one hospital sends.

    Attributes:
        hospital: which.
        files: its files by study.
        present: instances that the cloud shows already, by study.
    """

    hospital: Hospital
    files: dict[str, list[DicomFile]]
    present: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> list[DicomFile]:
        """The files of the studies that the cloud does not show as a whole."""
        return [
            file for study, files in self.files.items() if self.present.get(study, 0) < len(files) for file in files
        ]

    @property
    def visible(self) -> int:
        """How many of its instances the cloud shows."""
        return sum(min(self.present.get(study, 0), len(files)) for study, files in self.files.items())

    @property
    def count(self) -> int:
        """How many instances it has."""
        return sum(len(files) for files in self.files.values())


def demo(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Bring the stack up with two hospitals, their users, and real studies sent through their edges."""
    console = err if as_json else out
    began = time.monotonic()
    home = find_home()
    try:
        bring_up(home, console)
        with console.status("fetching the head template"):
            assets = fetch_assets()
        notes = Notes.read(home)
        with console.status("making tenants and users"), IdentityApi.of_stack(home) as identity:
            make_people(identity, home, notes)
        edges = make_edges(home, console)
        with console.status("preparing the studies"):
            studies = [_studies_of(hospital, assets, home.folder / "demo") for hospital in HOSPITALS]
        url = read_status(home, memory=False).public_url
        with Watcher(url, notes) as watcher:
            send_studies(studies, edges, watcher, console)
            wait_until_visible(studies, watcher, console)
    except (DemoFailed, NotStarted, DownloadFailed, AssetsMissing, IdentityError, NotConnected) as error:
        raise CliError(str(error), "Look: lightbox status, lightbox logs PART. Then again: lightbox demo") from error
    seconds = time.monotonic() - began
    if as_json:
        print_json(_as_json(url, studies, notes, home, seconds))
    else:
        _print_summary(console, url, studies, notes, home, seconds)


def bring_up(home: Home, console: Console) -> None:
    """Fetches the parts and starts the stack, or waits for it.

    Raises:
        NotStarted: it did not come up.
        DownloadFailed: a part can't be had.
    """
    bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console, transient=True)
    with bar:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"fetching {what}", total=total or None)
            bar.update(tasks[what], completed=done)

        prepare(progress)
    start_supervisor(home)
    with console.status("starting the stack") as spinner:
        for status in follow_start(home):
            waiting = [part.name for part in status.parts if part.state != "running"]
            spinner.update(f"starting the stack {', '.join(waiting)}")
    console.print("[green]✓[/green] the stack is up")


def make_people(identity: IdentityApi, home: Home, notes: Notes) -> None:
    """Makes the tenants, their users and a reader for this command, those that are not there yet.

    Arguments:
        identity: the identity service.
        home: where the notes are kept.
        notes: passwords made here are written there before anything else goes on.
    """
    for hospital in HOSPITALS:
        identity.create_tenant(hospital.tenant, hospital.name)
        known = notes.passwords.setdefault(hospital.tenant, {})
        for person in hospital.people:
            new = person.name not in known
            password = known.setdefault(person.name, _password())
            notes.write(home)
            made = identity.create_user(hospital.tenant, person.name, person.display_name, person.role, password)
            if new and not made:
                identity.set_password(hospital.tenant, person.name, password)
        if not _is_valid(identity, f"{hospital.tenant}.{_READER}", notes.readers.get(hospital.tenant, "")):
            _, notes.readers[hospital.tenant] = identity.create_client(hospital.tenant, _READER, ["dicom:read"])
            notes.write(home)


def _is_valid(identity: IdentityApi, client_id: str, secret: str) -> bool:
    """Whether a client can log in with the secret that was noted."""
    if not secret:
        return False
    try:
        identity.token(client_id, secret)
    except IdentityError as error:
        if error.status in (400, 401):
            return False
        raise
    return True


def make_edges(home: Home, console: Console) -> dict[str, Edge]:
    """Makes each hospital's edge, if it has none, and waits until all answer.

    Raises:
        DemoFailed: one does not come up.
    """
    with IdentityApi.of_stack(home) as identity:
        found = {
            edge.tenant: edge
            for edge in known_edges(home)
            if edge.name == EDGE_NAME and _is_valid(identity, edge.client_id, edge.client_secret)
        }
    for hospital in HOSPITALS:
        if hospital.tenant not in found:
            found[hospital.tenant] = make_edge(home, hospital.tenant, EDGE_NAME, hospital.ae_title)
    until = time.monotonic() + _EDGE_SECONDS
    with console.status("starting the edges"):
        for hospital in HOSPITALS:
            while spool_status(found[hospital.tenant]) is None:
                if time.monotonic() > until:
                    raise DemoFailed(f"the edge of {hospital.tenant} does not answer; see: lightbox logs")
                time.sleep(0.2)
    console.print("[green]✓[/green] two tenants, their users and edges")
    return found


class Watcher:
    """Looks in the cloud, as each tenant, for what is there. A context manager.

    Arguments:
        url: the front door.
        notes: the secrets of the readers.
    """

    def __init__(self, url: str, notes: Notes) -> None:
        self._http = httpx.Client(base_url=url, timeout=20)
        self._identity = IdentityApi(url, "")
        self._notes = notes
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._identity.__exit__(None, None, None)

    def look(self, studies: Studies) -> None:
        """Brings ``present`` up to date (QIDO-RS, PS3.18 section 10.6). An answer that fails changes nothing."""
        tenant = studies.hospital.tenant
        if tenant not in self._tokens:
            self._tokens[tenant] = self._identity.token(f"{tenant}.{_READER}", self._notes.readers[tenant])
        try:
            response = self._http.get(
                "/dicom-web/studies",
                params={"StudyInstanceUID": ",".join(studies.files), "limit": "200", "includefield": "00201208"},
                headers={"Authorization": f"Bearer {self._tokens[tenant]}", "Accept": "application/dicom+json"},
            )
        except httpx.HTTPError:
            return
        if response.status_code == 200:
            studies.present = {_value(one, "0020000D", ""): _value(one, "00201208", 0) for one in response.json()}


def send_studies(studies: list[Studies], edges: dict[str, Edge], watcher: Watcher, console: Console) -> None:
    """Sends each hospital's studies to its edge by C-STORE, those that are not there yet.

    Raises:
        NotConnected: an edge does not take associations.
        DemoFailed: an edge refused a file.
    """
    for one in studies:
        hospital = one.hospital
        watcher.look(one)
        if not one.missing:
            console.print(f"[green]✓[/green] {hospital.name}: {len(one.files)} studies are there already")
            continue
        title = f"{hospital.name} → edge {edges[hospital.tenant].ae_title}"
        report = send_with_progress(one.missing, peer_of(edges[hospital.tenant]), console, title=title)
        if report.failures:
            first = report.failures[0]
            raise DemoFailed(f"the edge refused {len(report.failures)} files; {first.path.name}: {first.reason}")


def wait_until_visible(studies: list[Studies], watcher: Watcher, console: Console) -> None:
    """Waits until a search in the cloud finds everything.

    Raises:
        DemoFailed: it takes too long.
    """
    until = time.monotonic() + _VISIBLE_SECONDS
    with counting_progress(console) as bar:
        task = bar.add_task("images in the cloud", total=sum(one.count for one in studies))
        while True:
            for one in studies:
                if one.missing:
                    watcher.look(one)
            bar.update(task, completed=sum(one.visible for one in studies))
            if not any(one.missing for one in studies):
                return
            if time.monotonic() > until:
                raise DemoFailed("not all images arrived in the cloud; see: lightbox edge list")
            time.sleep(0.3)


def _studies_of(hospital: Hospital, assets: Path, made: Path) -> Studies:
    found, _ = find_files(files_of(hospital.tenant, assets, made))
    by_study: dict[str, list[DicomFile]] = {}
    for file in found:
        by_study.setdefault(read_header(file.path).study_uid, []).append(file)
    return Studies(hospital, by_study)


def _password() -> str:
    """Three groups of four letters and digits that are not mistaken for each other: 59 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))


def _value(item: dict[str, Any], tag: str, missing: Any) -> Any:
    values = item.get(tag, {}).get("Value")
    return values[0] if values else missing


def _as_json(url: str, studies: list[Studies], notes: Notes, home: Home, seconds: float) -> dict[str, Any]:
    return {
        "address": url,
        "seconds": round(seconds, 1),
        "head_study": HEAD_STUDY,
        "passwords_in": str(Notes.file(home)),
        "tenants": [
            {
                "tenant": one.hospital.tenant,
                "name": one.hospital.name,
                "log_in": f"{url}/auth/login/{one.hospital.tenant}",
                "studies": len(one.files),
                "instances": one.count,
                "users": [
                    {"name": p.name, "role": p.role, "password": notes.passwords[one.hospital.tenant][p.name]}
                    for p in one.hospital.people
                ],
            }
            for one in studies
        ],
    }


def _print_summary(
    console: Console, url: str, studies: list[Studies], notes: Notes, home: Home, seconds: float
) -> None:
    count = sum(one.count for one in studies)
    console.print(f"[green]✓[/green] {sum(len(one.files) for one in studies)} studies, {count} images: all there\n")
    table = Table(title="Log-ins", title_justify="left")
    for heading in ("tenant", "user", "password", "role"):
        table.add_column(heading)
    for one in studies:
        hospital = one.hospital
        for number, person in enumerate(hospital.people):
            tenant = f"{hospital.tenant} ({hospital.name})" if number == 0 else ""
            password = notes.passwords[hospital.tenant][person.name]
            table.add_row(tenant, person.name, password, person.role, end_section=person is hospital.people[-1])
    console.print(table)
    viewer = f"{url}/ohif/viewer?StudyInstanceUIDs={HEAD_STUDY}"
    lines = [
        f"[bold]Lightbox is at[/bold] {url}",
        "",
        "What to try",
        f"  1. Log in as anna at {url}/auth/login/north",
        f"  2. Open Head^Template: {viewer}",
        f"  3. The same in three planes: {viewer}&hangingprotocolid=mpr",
        f"  4. Log in as rosa at {url}/auth/login/south (a private window keeps both): the same address",
        "     shows her hospital's phantom, whose UIDs are the same, and nothing of the north.",
        "  5. Send your own: lightbox send FOLDER --edge north",
        "",
        f"The passwords are kept in {Notes.file(home)}. It took {seconds:.0f} s. `lightbox down` stops it all.",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)

"""Every route of every service, asked with the other tenant's token, over UIDs that both tenants hold.

If one of these fails, somebody sees the images of another hospital's patient.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.certificates import DimseTls
from deploy.local.home import Home, read_json
from deploy.local.service_parts import DICOM_DOOR
from tests.services.ingest_gateway.instances import make_instance, new_uid
from tests.support.access import bearer, edge_token, user_token
from tests.support.dimse_tls import Sender
from tests.support.shown import Shown
from tests.support.system import run_lightbox

pytestmark = pytest.mark.system

SERVICES = ("identity", "ingest_gateway", "dicomweb", "audit", "portal")
NORTHERN = re.compile(rb"Head\^Template|HEAD, Template|MNI152|Anna Hansen|Northern", re.IGNORECASE)
MISSING = "2.25.1"


@pytest.fixture(scope="module")
def south(shown: Shown) -> Iterator[httpx.Client]:
    """The southern radiologist."""
    token = user_token(shown, "south", "rosa")
    with httpx.Client(base_url=shown.url, headers=bearer(token), timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def north(shown: Shown) -> Iterator[httpx.Client]:
    """The northern radiologist."""
    token = user_token(shown, "north", "anna")
    with httpx.Client(base_url=shown.url, headers=bearer(token), timeout=60) as client:
        yield client


def found(client: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/dicom-web{path}", params=query)
    assert answer.status_code in (200, 204), answer.text
    return answer.json() if answer.status_code == 200 else []


def uid_of(row: dict[str, Any], tag: str) -> str:
    return str(row[tag]["Value"][0])


def levels(client: httpx.Client, study: str) -> dict[str, str]:
    """A study, one of its series and one of its instances, by the names that routes give them."""
    series = uid_of(found(client, f"/studies/{study}/series")[0], "0020000E")
    instance = uid_of(found(client, f"/studies/{study}/series/{series}/instances", limit=1)[0], "00080018")
    return {"study": study, "series": series, "instance": instance}


def routes(client: httpx.Client) -> list[tuple[str, str]]:
    """Method and path of every route that the services say they have."""
    listed = []
    for service in SERVICES:
        answer = client.get(f"/api/openapi/{service}.json")
        assert answer.status_code == 200, f"{service} does not describe its routes"
        for path, operations in answer.json()["paths"].items():
            listed += [(method.upper(), path) for method in operations if method in ("get", "post", "patch", "delete")]
    assert len(listed) > 30
    return listed


def filled(path: str, uids: dict[str, str]) -> str | None:
    """The path with the study, series and instance put in; None when it names none of them."""
    if "{study" not in path and "{uid" not in path:
        return None

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        for level in ("study", "series", "instance"):
            if name.startswith(level):
                return uids[level]
        return {"uid": uids["study"], "sop": uids["instance"]}.get(name.split("_")[0], "1")

    return re.sub(r"\{(\w+)(?::\w+)?\}", value, path).replace("/bulkdata/1", "/bulkdata/7FE00010")


def essence(answer: httpx.Response, uids: dict[str, str]) -> tuple[int, str]:
    """What an answer says once the UIDs that were asked for are taken out."""
    text = answer.text
    for uid in uids.values():
        text = text.replace(uid, "UID")
    return answer.status_code, re.sub(r'data-request="[^"]*"', "", text)


def test_what_only_the_other_tenant_has_answers_like_what_nobody_has(north: httpx.Client, south: httpx.Client) -> None:
    southern = {uid_of(row, "0020000D") for row in found(south, "/studies", limit=200)}
    only_north = [
        uid for row in found(north, "/studies", limit=200) if (uid := uid_of(row, "0020000D")) not in southern
    ]
    assert len(only_north) >= 5
    nothing = {"study": MISSING, "series": f"{MISSING}.1", "instance": f"{MISSING}.2"}
    walked = 0
    for study in only_north[:2]:
        theirs = levels(north, study)
        for method, path in routes(south):
            asked = filled(path, theirs)
            if asked is None or method != "GET":
                continue
            answer, missing = south.get(asked), south.get(str(filled(path, nothing)))
            assert essence(answer, theirs) == essence(missing, nothing), f"{method} {path}"
            assert answer.status_code == 404 or answer.text in ("", "[]"), f"{method} {path}: {answer.status_code}"
            walked += 1
    assert walked > 30


def test_of_what_both_have_each_sees_its_own(shown: Shown, north: httpx.Client, south: httpx.Client) -> None:
    ours, theirs = levels(south, shown.head_study), levels(north, shown.head_study)
    assert theirs["series"] == ours["series"], "the demo must hold the same UIDs in both tenants"
    walked = 0
    for method, path in routes(south):
        asked = filled(path, ours)
        if asked is None or method != "GET":
            continue
        southern, northern = south.get(asked), north.get(asked)
        assert not NORTHERN.search(southern.content), f"{method} {path} tells the south of the north"
        if northern.status_code == southern.status_code == 200 and "frames" in path:
            assert southern.content != northern.content, f"{method} {path} gives both the same picture"
        walked += 1
    assert walked > 15


def test_counts_tell_nothing_of_the_other_tenant(shown: Shown, north: httpx.Client, south: httpx.Client) -> None:
    for client, count in ((north, 189), (south, 48)):
        (row,) = found(client, "/studies", StudyInstanceUID=shown.head_study)
        assert uid_of(row, "00201208") == str(count)
        assert len(found(client, f"/studies/{shown.head_study}/instances", limit=1000)) == count


def test_no_search_finds_the_other_tenants_patients(south: httpx.Client) -> None:
    for query in ({"PatientName": "*Template*"}, {"00100010": "Head*"}, {"StudyDescription": "MNI152*"}):
        assert found(south, "/studies", **query) == []
    page = south.get("/", params={"q": "template"})
    assert page.status_code == 200
    assert not NORTHERN.search(page.content)


@pytest.mark.parametrize("header", ["X-Tenant", "X-Lightbox-Tenant", "Tenant", "X-Forwarded-User"])
def test_a_header_does_not_choose_the_tenant(south: httpx.Client, header: str) -> None:
    answer = south.get("/dicom-web/studies", params={"PatientName": "*Template*"}, headers={header: "north"})
    assert answer.status_code == 204 or answer.json() == []


def test_nothing_is_open_without_a_token(shown: Shown) -> None:
    """All routes but those that let people in and say that a service lives."""
    open_routes = re.compile(r"^/(auth/|\.well-known/|static/|api/docs|api/openapi/|health|metrics)")
    with httpx.Client(base_url=shown.url, timeout=30) as nobody:
        for method, path in routes(nobody):
            if open_routes.match(path):
                continue
            concrete = filled(path, levels_of_nothing()) or re.sub(r"\{[^}]+\}", "north", path)
            answer = nobody.request(method, concrete)
            refused = answer.status_code == 401
            to_the_log_in = answer.status_code == 303 and answer.headers["location"].startswith("/auth/")
            assert refused or to_the_log_in, f"{method} {path} answers {answer.status_code} to nobody"


def levels_of_nothing() -> dict[str, str]:
    return {"study": MISSING, "series": f"{MISSING}.1", "instance": f"{MISSING}.2"}


def test_an_edge_can_store_and_nothing_else(shown: Shown) -> None:
    with httpx.Client(base_url=shown.url, headers=bearer(edge_token(shown, "south")), timeout=30) as edge:
        assert edge.get("/dicom-web/studies").status_code == 403
        assert edge.get("/api/audit/records").status_code == 403
        assert edge.get("/api/identity/tenants").status_code == 403


def test_a_tenant_administrator_is_nobody_elsewhere(shown: Shown) -> None:
    with httpx.Client(base_url=shown.url, headers=bearer(user_token(shown, "south", "alma")), timeout=30) as alma:
        assert alma.get("/api/identity/tenants/south/users").status_code == 200
        for path in ("users", "clients", "nodes"):
            other, missing = (alma.get(f"/api/identity/tenants/{t}/{path}") for t in ("north", "nowhere"))
            assert other.status_code == missing.status_code == 404
            assert other.text.replace("north", "nowhere") == missing.text


def test_no_quarantine_and_no_list_of_quality_tells_of_another_tenant(shown: Shown) -> None:
    """Every route that names an entry, and every list, asked by the southern administrator about what the north has."""
    junk = f"refused in the north {MISSING}".encode() * 10
    name, nothing = hashlib.sha256(junk).hexdigest(), "0" * 64
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + junk + b"\r\n--b--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    with httpx.Client(base_url=shown.url, headers=bearer(edge_token(shown, "north")), timeout=60) as edge:
        assert edge.post("/dicom-web/studies", content=body, headers=headers).status_code == 409
    with httpx.Client(base_url=shown.url, headers=bearer(user_token(shown, "south", "alma")), timeout=60) as alma:
        walked = 0
        for method, path in routes(alma):
            if "{entry}" in path:
                query = {"reason": "none of mine"} if path.endswith("/discard") else {}
                theirs = alma.request(method, path.replace("{entry}", name), params=query)
                nobodys = alma.request(method, path.replace("{entry}", nothing), params=query)
                assert theirs.status_code == nobodys.status_code == 404, f"{method} {path}"
                assert theirs.json()["detail"] == nobodys.json()["detail"], f"{method} {path}"
                walked += 1
        assert walked == 4
        assert name not in alma.get("/api/ingest/quarantine", params={"limit": 1000}).text
        for path in ("/api/quality/duplicates", "/api/quality/warnings"):
            assert not NORTHERN.search(alma.get(path, params={"study": shown.head_study}).content)


def test_a_southern_certificate_opens_no_northern_door(
    shown: Shown, north: httpx.Client, south: httpx.Client, tmp_path: Path
) -> None:
    """The cloud's own DICOM door: certificate and called AE title name the tenant together, and neither does alone."""
    home = Home(shown.home)
    tls = DimseTls.of(home)
    port = read_json(home.ports_file)[DICOM_DOOR]
    titles, senders = {}, {}
    for tenant in ("north", "south"):
        credential = tls.issue(f"{tenant}-ct", 1)
        run_lightbox(shown.home, "node", "remove", tenant, "test-ct")
        added = run_lightbox(
            shown.home, "node", "add", tenant, "test-ct", "--certificate", str(credential.certificate), "--json"
        )
        assert added.returncode == 0, added.stderr
        titles[tenant] = json.loads(added.stdout)["called_ae_title"]
        senders[tenant] = Sender(tls.authority, port, titles[tenant], credential)
    intruder = Sender(tls.authority, port, titles["north"], senders["south"].credential)
    assert intruder.rejection() == (1, 1, 7)
    file, study = tmp_path / "image.dcm", new_uid()
    file.write_bytes(make_instance(study=study))
    assert senders["south"].send(file) == [0]
    until = time.monotonic() + 30
    while not (rows := found(south, "/studies", StudyInstanceUID=study)):
        assert time.monotonic() < until, "it was stored and is not found"
        time.sleep(0.2)
    assert uid_of(rows[0], "00201208") == "1"
    assert found(north, "/studies", StudyInstanceUID=study) == []
    listed = run_lightbox(shown.home, "node", "list", "south", "--json")
    assert titles["north"] not in listed.stdout

"""The pages over HTTP, on the real catalog."""

import re
from datetime import UTC, date, datetime, timedelta

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.auth import TENANTS_ADMIN
from services.portal.pages import PAGE_POLICY
from tests.services.portal.catalog_rows import Study
from tests.services.portal.conftest import HTML, Reader, reading
from tests.support.tokens import TokenIssuer

PART = {"hx-request": "true"}


def names(answer: httpx.Response) -> list[str]:
    """The names in the lines of a worklist, in order."""
    assert answer.status_code == 200, answer.text
    return re.findall(r'class="open"[^>]*><bdi class="pn">([^<]*)</bdi>', answer.text)


async def test_the_latest_arrival_is_on_top_and_more_can_be_loaded(reader: Reader) -> None:
    now = datetime.now(UTC)
    await reader.add(*(Study(name=f"P{n:02}", patient_id=str(n), received=now - timedelta(hours=n)) for n in range(12)))
    first = await reader.page("/")
    assert names(first) == [f"P{n:02}" for n in range(5)]
    seen = names(first)
    answer = first
    while found := re.search(r'hx-get="([^"]+before=[^"]+)"', answer.text):
        answer = await reader.page(found[1].replace("&amp;", "&"), **PART)
        assert "<html" not in answer.text
        seen += names(answer)
    assert seen == [f"P{n:02}" for n in range(12)]


async def test_search_by_each_field(reader: Reader) -> None:
    await reader.add(
        Study("Doe^Jane", "A-1", accession="ACC7", description="Head", day=date(2026, 1, 5)),
        Study("Roe^Rick", "B-2", description="Chest", day=date(2026, 2, 5), series=(("CT", "", 3), ("SR", "", 1))),
        Study("O'Neil^50%", "C_3", description="Knee", day=None),
    )
    for query, expected in {
        "q=head": {"DOE, Jane"},
        "q=jane+doe": {"DOE, Jane"},
        "q=modality:CT": {"ROE, Rick"},
        "q=from:2026-02": {"ROE, Rick"},
        "q=to:2026-01": {"DOE, Jane"},
        "q=accession:ACC": {"DOE, Jane"},
        "q=id:B": {"ROE, Rick"},
        "name=roe": {"ROE, Rick"},
        "q=50%25": {"O&#39;NEIL, 50%"},
        "q=C_3": {"O&#39;NEIL, 50%"},
        "q=o'neil": {"O&#39;NEIL, 50%"},
        "q=doe&modality=CT": set(),
        "q=nothing:here": set(),
        "modality=MR&from=2026-01-01&to=2026-01-31&name=doe&id=A&accession=ACC7": {"DOE, Jane"},
    }.items():
        assert set(names(await reader.page(f"/?{query}"))) == expected, query


async def test_the_address_follows_the_search(reader: Reader) -> None:
    answer = await reader.page("/?q=&name=doe&id=&from=2026-01", **PART)
    assert answer.headers["hx-replace-url"] == "/?name=doe&from=2026-01-01"
    assert "no-store" in answer.headers["cache-control"]


async def test_an_empty_list_says_what_to_do(reader: Reader) -> None:
    assert "lightbox send" in (await reader.page("/")).text
    await reader.add(Study())
    assert "No study matches" in (await reader.page("/?q=nobody")).text


async def test_names_from_outside_stay_text(reader: Reader) -> None:
    uid = Study(name="<img src=x onerror=alert(1)>^\u202eevil", description='"><script>alert(1)</script>')
    await reader.add(uid)
    for path in ("/", f"/studies/{uid.uid}"):
        text = (await reader.page(path)).text
        assert "<img src=x" not in text
        assert "<script>alert" not in text
        assert "\u202e" not in text


async def test_another_clinic_sees_neither_line_nor_page(pair: tuple[Reader, Reader]) -> None:
    north, south = pair
    mine = Study("North^Only")
    shared = Study("North^Shared")
    await north.add(mine, shared)
    await south.add(Study("South^Shared", uid=shared.uid))
    assert names(await south.page("/")) == ["SOUTH, Shared"]
    assert names(await south.page(f"/worklist/rows?uid={mine.uid}&uid={shared.uid}")) == ["SOUTH, Shared"]
    assert "NORTH" not in (await south.page(f"/studies/{shared.uid}")).text
    foreign = await south.page(f"/studies/{mine.uid}")
    missing = await south.page("/studies/1.2.3.4")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.text.replace(mine.uid, "") == missing.text.replace("1.2.3.4", "")


async def test_the_study_page_shows_series_and_other_studies(reader: Reader) -> None:
    study = Study("Doe^Jane", "P1", series=(("MR", "T1 sag", 189), ("SR", "Report", 1)), description="Brain")
    prior = Study("Doe^Jane", "P1", day=date(2020, 1, 1), description="Old brain")
    await reader.add(study, prior, Study("Else^Somebody", "P2", description="Not hers"))
    text = (await reader.page(f"/studies/{study.uid}")).text
    assert "T1 sag" in text
    assert f"/studies/{prior.uid}" in text
    assert "Not hers" not in text
    assert f"/ohif/viewer?StudyInstanceUIDs={study.uid}&amp;hangingprotocolid=mpr" in text
    assert f"/dicom-web/studies/{study.uid}/series/" in text


async def test_three_planes_only_for_volumes(reader: Reader) -> None:
    flat = Study(series=(("CR", "", 2),))
    await reader.add(flat)
    assert "hangingprotocolid" not in (await reader.page(f"/studies/{flat.uid}")).text


async def test_new_studies_since_a_place_in_the_list(reader: Reader) -> None:
    now = datetime.now(UTC)
    await reader.add(Study("Old^One", received=now - timedelta(hours=1)))
    found = re.search(r'data-cursor="([^"]+)"', (await reader.page("/")).text)
    assert found
    assert names(await reader.page(f"/worklist/new?since={found[1]}")) == []
    await reader.add(Study("New^One", "2", received=now), Study("Other^One", "3", received=now))
    assert set(names(await reader.page(f"/worklist/new?since={found[1]}"))) == {"NEW, One", "OTHER, One"}
    assert names(await reader.page(f"/worklist/new?since={found[1]}&q=new")) == ["NEW, One"]


async def test_bad_input_is_refused_in_words(reader: Reader) -> None:
    for path, status in {
        "/?before=nonsense": 400,
        "/worklist/new?since=W10": 400,
        "/worklist/rows?uid=../../etc": 400,
        "/worklist/rows": 400,
        "/worklist/rows?" + "&".join(f"uid=1.{n}" for n in range(51)): 400,
        "/studies/1.2%2F3": 404,
        "/studies/" + "1" * 65: 404,
        "/studies/%00": 404,
        "/nothing": 404,
        "/static/app.css": 404,
        "/static/..%2fmain.py": 404,
    }.items():
        answer = await reader.page(path)
        assert answer.status_code == status, path
    page = await reader.page("/nothing")
    assert page.headers["content-type"].startswith("text/html")
    data = await reader.http.get("/studies/1.2.3", headers={"accept": "application/json"})
    assert data.headers["content-type"] == "application/problem+json"


async def test_without_a_session_a_page_leads_to_log_in_and_a_part_says_so(portal_url: str) -> None:
    async with httpx.AsyncClient(base_url=portal_url, trust_env=False) as http:
        answer = await http.get("/?q=head+x&modality=CT", headers=HTML)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/auth/renew?next=/%3Fq%3Dhead%2Bx%26modality%3DCT"
        assert (await http.get("/", headers={**HTML, **PART})).status_code == 401
        assert (await http.get("/events", headers={"accept": "text/event-stream"})).status_code == 401
        for path in ("/studies/1.2", "/worklist/new", "/worklist/rows?uid=1.2"):
            assert (await http.get(path)).status_code == 401
        wrong = await http.get("/", headers={**HTML, "authorization": "Bearer x.y.z"})
        assert wrong.status_code == 303


async def test_operators_are_told_what_they_can_do(portal_url: str, issuer: TokenIssuer, owner: AsyncEngine) -> None:
    async with reading(
        portal_url, issuer, owner, "system", TENANTS_ADMIN, subject="user:root", roles=("operator",)
    ) as operator:
        page = await operator.page("/")
        assert page.status_code == 200
        assert "lightbox tenant" in page.text
        assert (await operator.page("/studies/1.2")).status_code == 403
        assert (await operator.page("/events")).status_code == 403


async def test_pages_are_confined_and_carry_nothing_inline(reader: Reader) -> None:
    study = Study()
    await reader.add(study)
    for path in ("/", f"/studies/{study.uid}", "/nothing", "/api/docs"):
        page = await reader.page(path)
        policy = page.headers["content-security-policy"]
        assert "script-src" not in policy
        assert "default-src 'self'" in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*\bsrc=)", page.text), path
        assert not re.search(r"\s(style|on[a-z]+)=", page.text), path
    assert page.headers["content-security-policy"] != PAGE_POLICY


async def test_assets_are_kept_for_good_under_an_address_of_their_content(reader: Reader) -> None:
    page = (await reader.page("/")).text
    addresses = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert len(addresses) >= 4
    for address in addresses:
        assert re.search(r"\.[0-9a-f]{12}\.(js|css|svg)$", address)
        answer = await reader.http.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


async def test_light_is_remembered(reader: Reader) -> None:
    assert 'data-theme="dark"' in (await reader.page("/")).text
    reader.http.cookies.set("lightbox_theme", "light")
    assert 'data-theme="light"' in (await reader.page("/")).text


async def test_the_api_documentation_lists_the_services(reader: Reader) -> None:
    page = (await reader.page("/api/docs")).text
    for service in ("identity", "ingest_gateway", "dicomweb", "audit", "portal"):
        assert f'value="{service}"' in page
    document = (await reader.http.get("/openapi.json")).json()
    assert {"/", "/events", "/studies/{study_uid}"} <= set(document["paths"])

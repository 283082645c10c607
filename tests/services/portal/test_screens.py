"""The pages in a real browser, on the real catalog: what the eye, the keyboard and assistive software get."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from playwright.async_api import Browser, Page
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.auth import ACCESS_COOKIE, DICOM_READ
from tests.services.portal.catalog_rows import Study, add_studies
from tests.services.portal.test_live import publish
from tests.support.backing import Backing
from tests.support.browser import SCREENS, chromium, eventually, overflow, serious_findings, shoot, window
from tests.support.tokens import TokenIssuer

NAMES = (
    "Doe^Jane",
    "Müller^Hans-Jürgen^^Dr.",
    "Yamada^Tarou=山田^太郎",
    "كريم^علي",
    "Verylongfamilyname" * 3 + "^Given",
)


@dataclass
class Desk:
    """A clinic with studies, and a browser whose user is logged in."""

    url: str
    tenant: str
    browser: Browser
    token: str
    engine: AsyncEngine
    backing: Backing
    studies: list[Study]

    @asynccontextmanager
    async def sit_down(self, size: tuple[int, int] = (1440, 900), theme: str = "dark") -> AsyncIterator[Page]:
        async with window(self.browser, self.url, size) as page:
            await page.context.add_cookies(
                [
                    {"name": ACCESS_COOKIE, "value": self.token, "url": self.url},
                    {"name": "lightbox_theme", "value": theme, "url": self.url},
                ]
            )
            yield page

    async def arrive(self, study: Study) -> None:
        """A study arrives, as indexing tells of it."""
        await add_studies(self.engine, self.tenant, study)
        await publish(self.backing, self.tenant, study.uid)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest.fixture
async def desk(
    browser: Browser, portal_url: str, issuer: TokenIssuer, owner: AsyncEngine, tenant: str, backing: Backing
) -> Desk:
    now = datetime.now(UTC) - timedelta(minutes=1)
    studies = [
        Study(
            NAMES[n % len(NAMES)],
            f"P{n % 6}",
            received=now - timedelta(minutes=n * n),
            description=f"Study {n} with a description that goes on for quite a while",
            series=(("MR", "T1", 20), ("SR", "Report", 1), ("CT", "Thorax", 400), ("US", "", 3)),
        )
        for n in range(12)
    ]
    await add_studies(owner, tenant, *studies)
    token = issuer.token_for(
        tenant, [DICOM_READ], "user:anna", name="Anna Nord", roles=["radiologist"], tenant_name="Clinic in the North"
    )
    return Desk(portal_url, tenant, browser, token, owner, backing, studies)


async def live(page: Page) -> None:
    """Waits until the page hears of new studies."""
    await eventually(lambda: page.locator("#live[data-state=on]").count(), "the page is live")


async def focused_uid(page: Page) -> str:
    """The study whose line has the focus."""
    return str(await page.evaluate("() => document.activeElement.closest('.study')?.dataset.uid ?? ''"))


PAGES = {"worklist": "/", "no-match": "/?q=zzz+from:x", "missing": "/studies/1.2.3"}


async def test_nothing_sticks_out_at_any_size(desk: Desk) -> None:
    pages = {**PAGES, "study": f"/studies/{desk.studies[0].uid}"}
    for size in SCREENS:
        async with desk.sit_down(size) as page:
            for name, path in pages.items():
                await page.goto(path)
                await shoot(page, f"portal-{name}-{size[0]}")
                assert await overflow(page) == [], (name, size)
            if size[0] < 760:
                await page.goto("/")
                await page.locator("#filters-toggle").click()
                assert await overflow(page) == [], ("filters", size)


@pytest.mark.parametrize(("size", "theme"), [(SCREENS[0], "dark"), (SCREENS[0], "light"), (SCREENS[2], "dark")])
async def test_axe_finds_nothing_serious(desk: Desk, size: tuple[int, int], theme: str) -> None:
    async with desk.sit_down(size, theme) as page:
        for path in ("/", "/?q=zzz+from:x", f"/studies/{desk.studies[0].uid}"):
            await page.goto(path)
            assert await serious_findings(page) == [], path


async def test_axe_finds_nothing_serious_in_the_dialogs(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/")
        for key in ("?", "Control+k"):
            await page.keyboard.press(key)
            assert await page.locator("dialog[open]").count() == 1
            assert await serious_findings(page) == []
            await page.keyboard.press("Escape")


async def test_everything_by_keyboard(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/")
        first, second = desk.studies[0].uid, desk.studies[1].uid
        await page.keyboard.press("j")
        assert await focused_uid(page) == first
        await page.keyboard.press("j")
        assert await focused_uid(page) == second
        outline = "() => getComputedStyle(document.activeElement.closest('td')).borderTopColor"
        assert await page.evaluate(outline) == "rgb(76, 184, 196)"
        await page.keyboard.press("k")
        await page.keyboard.press("/")
        assert await page.evaluate("() => document.activeElement.id") == "q"
        await page.keyboard.type("müller")
        await eventually(lambda: _lines(page, 3), "three lines match")
        assert "q=m%C3%BCller" in page.url
        await page.keyboard.press("ArrowDown")
        assert await focused_uid(page) == second
        await page.keyboard.press("o")
        await page.wait_for_url(f"**/studies/{second}")
        await page.keyboard.press("Control+k")
        await page.keyboard.type("workl")
        await page.keyboard.press("Enter")
        await page.wait_for_url(desk.url + "/")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/ohif/viewer?StudyInstanceUIDs={first}*")


async def _lines(page: Page, count: int) -> bool:
    return await page.locator("#rows .study").count() == count


async def test_more_lines_come_at_the_end(desk: Desk) -> None:
    async with desk.sit_down((1024, 240)) as page:
        await page.goto("/")
        assert await page.locator("#rows .study").count() == 5
        for _ in range(5):
            await page.keyboard.press("j")
        for count in (10, 12):
            await page.keyboard.press("End")
            await page.evaluate("() => document.querySelector('#rows').lastElementChild.scrollIntoView()")
            await eventually(partial(_at_least, page, count), f"{count} lines")
        assert await page.locator("#rows .more").count() == 0


async def _at_least(page: Page, count: int) -> bool:
    return await page.locator("#rows .study").count() >= count


async def test_filter_fields_and_clear(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/?modality=US&from=2026-01")
        assert await page.locator("input[name=from]").input_value() == "2026-01-01"
        await page.locator("input[name=name]").fill("doe")
        await eventually(lambda: _lines(page, 3), "the three of that name")
        await page.locator("#clear").click()
        await eventually(lambda: _at_least(page, 5), "all again")
        assert page.url == desk.url + "/"


async def test_a_new_study_comes_in_by_itself(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/")
        await live(page)
        await desk.arrive(Study("New^Arrival", "N1"))
        await eventually(lambda: page.locator("#rows .study", has_text="NEW, Arrival").count(), "the new study")
        assert await page.locator("#fresh").is_hidden()


async def test_a_new_study_waits_while_somebody_points_at_a_line(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/")
        await live(page)
        await page.locator("#rows .study").nth(2).hover()
        before = await page.locator("#rows .study").nth(2).bounding_box()
        await desk.arrive(Study("New^One", "N1"))
        await eventually(lambda: page.locator("#fresh:not([hidden])").count(), "the notice")
        assert await page.locator("#fresh").inner_text() == "1 new study – show"
        assert await page.locator("#rows .study").nth(2).bounding_box() == before
        await shoot(page, "portal-new-study-waits")
        await page.locator("#fresh").click()
        await eventually(lambda: page.locator("#rows .study", has_text="NEW, One").count(), "the new study")


async def test_a_line_that_changes_keeps_the_focus(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/")
        await live(page)
        await page.keyboard.press("j")
        await publish(desk.backing, desk.tenant, desk.studies[0].uid, kind="updated")
        await asyncio.sleep(1.0)
        assert await focused_uid(page) == desk.studies[0].uid


async def test_the_first_study_of_an_empty_clinic_appears(
    browser: Browser, portal_url: str, issuer: TokenIssuer, owner: AsyncEngine, tenant: str, backing: Backing
) -> None:
    token = issuer.token_for(tenant, [DICOM_READ], "user:anna")
    desk = Desk(portal_url, tenant, browser, token, owner, backing, [])
    async with desk.sit_down() as page:
        await page.goto("/")
        await live(page)
        await shoot(page, "portal-empty")
        await desk.arrive(Study("First^Ever"))
        await eventually(lambda: page.locator("#rows .study", has_text="FIRST, Ever").count(), "the first study")


async def test_light_is_remembered_by_the_browser(desk: Desk) -> None:
    async with desk.sit_down() as page:
        await page.goto("/")
        await page.locator("[data-command=theme]").click()
        await page.reload()
        assert await page.evaluate("() => document.documentElement.dataset.theme") == "light"

"""A person at a browser, on the whole stack with the demo's two clinics: log in, find, look; and see nothing else's."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from playwright.async_api import Browser, Page

from tests.support.browser import (
    SCREENS,
    chromium,
    eventually,
    overflow,
    picture,
    serious_findings,
    shoot,
    window,
)
from tests.support.shown import Shown

pytestmark = pytest.mark.system

PANES = "[data-cy=viewport-pane]"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@asynccontextmanager
async def logged_in(
    browser: Browser, shown: Shown, tenant: str, user: str, size: tuple[int, int] = (1440, 900), *, strict: bool = True
) -> AsyncIterator[Page]:
    """A window whose user has logged in by the form and is at the worklist."""
    async with window(browser, shown.url, size, strict=strict) as page:
        await page.goto(f"/auth/login/{tenant}")
        await page.locator("input[name=name]").fill(user)
        await page.locator("input[name=password]").fill(shown.password(tenant, user))
        await page.locator("input[name=password]").press("Enter")
        await page.wait_for_url(f"{shown.url}/")
        yield page


async def drawn(page: Page, pane: int = 0) -> bool:
    """Whether a viewport shows a picture: grey values that differ, not one colour."""
    box = await page.locator(PANES).nth(pane).bounding_box()
    if box is None:
        return False
    # The middle, so that no text drawn over the edges counts.
    pixels = picture(
        await page.screenshot(
            clip={
                "x": box["x"] + box["width"] * 0.3,
                "y": box["y"] + box["height"] * 0.3,
                "width": box["width"] * 0.4,
                "height": box["height"] * 0.4,
            }
        )
    )
    return bool(pixels.std() > 10)


async def test_the_radiologist_finds_the_head_and_looks_at_it(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "north", "anna", strict=False) as page:
        assert (await page.locator(".clinic").inner_text()).startswith("North")
        await eventually(lambda: page.locator("#live[data-state=on]").count(), "the page is live")
        await shoot(page, "worklist")
        await page.keyboard.press("/")
        await page.keyboard.type("template")
        row = page.locator(f"#rows .study[data-uid='{shown.head_study}']")
        await eventually(lambda: _only_line(page), "the only match")
        assert "HEAD, Template" in await row.inner_text()
        assert await row.locator(".c-images").inner_text() == "189"
        await shoot(page, "found")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/ohif/viewer?StudyInstanceUIDs=*")
        await eventually(lambda: drawn(page), "the head on the screen", seconds=60, every=0.5)
        await scroll(page, 5)
        await eventually(lambda: drawn(page), "a slice further on", seconds=20)
        text = await page.locator("body").inner_text()
        assert "T1 axial 1 mm" in text
        assert re.search(r"\(\d\d+/189\)", text), text
        await page.get_by_text("Patient", exact=True).first.click()
        await eventually(lambda: page.get_by_text("Head, Template").count(), "the patient's name", seconds=10)
        await shoot(page, "viewer")


async def settled(page: Page) -> bool:
    """Whether the picture stays the same for two seconds: while slices arrive, it does not."""
    before = picture(await page.screenshot())
    await page.wait_for_timeout(2000)
    return bool((before == picture(await page.screenshot())).all())


async def scroll(page: Page, slices: int) -> None:
    """Turns the wheel over the first viewport."""
    box = await page.locator(PANES).first.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(slices):
        await page.mouse.wheel(0, 120)
        await page.wait_for_timeout(25)


async def _only_line(page: Page) -> bool:
    return await page.locator("#rows .study").count() == 1


async def test_the_head_in_three_planes(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "north", "anna", strict=False) as page:
        await page.goto(f"/studies/{shown.head_study}")
        await page.locator(".open-mpr").click()
        await page.wait_for_url("**hangingprotocolid=mpr**")
        for pane in range(3):
            await eventually(partial(drawn, page, pane), f"plane {pane}", seconds=90, every=1.0)
        assert await page.locator(PANES).count() == 3
        await eventually(partial(settled, page), "all slices in the planes", seconds=60)
        await shoot(page, "viewer-mpr")


async def test_the_study_page_shows_thumbnails(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "north", "anna") as page:
        await page.goto(f"/studies/{shown.head_study}")
        await eventually(lambda: page.locator(".thumb.loaded").count(), "the thumbnail")
        await shoot(page, "study")


async def test_the_same_uids_show_each_clinic_its_own(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "south", "rosa", strict=False) as page:
        row = page.locator(f"#rows .study[data-uid='{shown.head_study}']")
        assert "PHANTOM, Rings" in await row.inner_text()
        assert await row.locator(".c-images").inner_text() == "48"
        assert "HEAD, Template" not in await page.locator("body").inner_text()
        await page.goto(f"/ohif/viewer?StudyInstanceUIDs={shown.head_study}")
        await eventually(lambda: drawn(page), "the phantom on the screen", seconds=60, every=0.5)
        text = await page.locator("body").inner_text()
        assert "Rings and rods" in text
        assert "T1 axial" not in text
        await shoot(page, "viewer-south")


async def test_what_is_the_norths_alone_does_not_exist_for_the_south(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "north", "anna") as page:
        uids = await _studies(page)
    async with logged_in(browser, shown, "south", "rosa", strict=False) as page:
        foreign = sorted(uids - await _studies(page))
        assert foreign
        for path in (
            f"/dicom-web/studies/{foreign[0]}/metadata",
            f"/dicom-web/studies/{foreign[0]}/series",
            f"/dicom-web/studies/{foreign[0]}/rendered",
            f"/studies/{foreign[0]}",
        ):
            status = await page.evaluate("async (path) => (await fetch(path)).status", path)
            assert status in (404, 204), path
            if "series" not in path:
                assert status == 404, path
        await page.goto(f"/ohif/viewer?StudyInstanceUIDs={foreign[0]}")
        await asyncio.sleep(4)
        assert await page.locator(PANES).count() == 0 or not await drawn(page)
        await shoot(page, "viewer-foreign")


async def _studies(page: Page) -> set[str]:
    """The UIDs of all lines, after loading them all."""
    while await page.locator("#rows .more a").count():
        await page.locator("#rows .more a").click()
        await page.wait_for_timeout(300)
    found = await page.locator("#rows .study").evaluate_all("rows => rows.map(row => row.dataset.uid)")
    return set(found)


async def test_a_study_sent_now_appears_by_itself(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "north", "vera") as page:
        await eventually(lambda: page.locator("#live[data-state=on]").count(), "the page is live")
        name = await shown.send_new_study("north")
        await eventually(lambda: page.locator("#rows .study", has_text=name).count(), "the study just sent", seconds=30)


async def test_pages_on_the_whole_stack_at_every_size(browser: Browser, shown: Shown) -> None:
    for size in SCREENS:
        async with window(browser, shown.url, size) as page:
            await page.goto("/auth/login/north")
            assert await overflow(page) == [], ("log-in", size)
            assert await page.evaluate("() => document.documentElement.scrollHeight <= innerHeight"), size
            assert await serious_findings(page) == [], ("log-in", size)
            await shoot(page, f"log-in-{size[0]}")
        async with logged_in(browser, shown, "north", "anna", size) as page:
            assert await overflow(page) == [], ("worklist", size)
            await shoot(page, f"worklist-{size[0]}")
            await page.goto(f"/studies/{shown.head_study}")
            await eventually(lambda: page.locator(".thumb.loaded").count(), "the thumbnail")
            assert await overflow(page) == [], ("study", size)
            assert await serious_findings(page) == [], ("study", size)
            await shoot(page, f"study-{size[0]}")


async def test_the_api_of_every_service_is_documented(browser: Browser, shown: Shown) -> None:
    async with window(browser, shown.url) as page:
        await page.goto("/api/docs")
        services = await page.locator("#service option").evaluate_all("all => all.map(one => one.value)")
        assert len(services) == 5
        for service in services:
            await page.locator("#service").select_option(service)
            address = f"/api/openapi/{service}.json"
            await eventually(page.locator(".swagger-ui .info", has_text=address).count, service)
            await eventually(lambda: page.locator(".swagger-ui .opblock").count(), f"operations of {service}")
        await shoot(page, "api-docs")


async def test_after_log_out_nothing_is_left_open(browser: Browser, shown: Shown) -> None:
    async with logged_in(browser, shown, "north", "vera") as page:
        await page.locator("#log-out").click()
        await page.wait_for_url("**/auth/login/north**")
        assert (await page.context.request.get("/dicom-web/studies")).status == 401
        await page.goto("/")
        await page.wait_for_url("**/auth/login**")

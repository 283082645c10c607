"""A real Chromium for tests: the system's own, driven by Playwright."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import imagecodecs
import numpy as np
import pytest
from axe_playwright_python.async_playwright import Axe
from numpy.typing import NDArray
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

SCREENS: Final = ((1440, 900), (1024, 768), (390, 844))
"""The sizes at which every page is tried, in CSS pixels."""

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


_CLOSING_SECONDS: Final = 30


def chromium_path() -> str | None:
    """Where the system's Chromium is, or ``None``."""
    return os.environ.get("LIGHTBOX_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def require_chromium() -> str:
    """Where Chromium is; without one the test is skipped visibly, and fails under CI."""
    found = chromium_path()
    if found is None:
        missing = "Chromium is not installed (Debian, Ubuntu: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser."""
    path = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def window(
    browser: Browser, base_url: str, size: tuple[int, int] = (1440, 900), *, strict: bool = True, **options: Any
) -> AsyncIterator[Page]:
    """A page of a fresh browser profile.

    Arguments:
        browser: a running browser.
        base_url: what addresses without a host mean.
        size: of the window, in CSS pixels.
        strict: errors of the page's scripts and refusals by its CSP fail the test when the window closes.
        options: further options of the profile.

    A test that leads to another page waits until it is there (``wait_for_url``): Chromium may never close a window that
    it is told to close while a page with an open EventSource is just being left.
    """
    context: BrowserContext = await browser.new_context(
        base_url=base_url, viewport={"width": size[0], "height": size[1]}, locale="en-GB", **options
    )
    context.set_default_timeout(20_000)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None,
    )
    try:
        yield page
    finally:
        try:
            await asyncio.wait_for(context.close(), _CLOSING_SECONDS)
        except TimeoutError:
            raise AssertionError(f"the window did not close; it was on its way from {page.url}") from None
    assert not strict or complaints == []


def screenshot_folder() -> Path:
    """Where screenshots are put to be looked at: LIGHTBOX_SCREENSHOTS, or a temporary folder."""
    named = os.environ.get("LIGHTBOX_SCREENSHOTS")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / "lightbox-screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def shoot(page: Page, name: str) -> Path:
    """Takes a screenshot of what is visible."""
    path = screenshot_folder() / f"{re.sub(r'[^a-z0-9-]+', '-', name.lower())}.png"
    await page.screenshot(path=path)
    return path


async def eventually(look: Callable[[], Awaitable[Any]], what: str, *, seconds: float = 20, every: float = 0.1) -> Any:
    """The first true result of ``look``; asked again and again, since the pages forbid what Playwright evaluates."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = await look()
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s; last seen {found!r}")
        await asyncio.sleep(every)


async def overflow(page: Page) -> list[str]:
    """What sticks out of the page to the right."""
    found: list[str] = await page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          const out = document.documentElement.scrollWidth > width ? ['the page scrolls sideways'] : [];
          const clipped = (element) => {
            for (let up = element.parentElement; up && up !== document.body; up = up.parentElement) {
              if (getComputedStyle(up).overflowX === 'hidden' && up.getBoundingClientRect().right <= width) return true;
            }
            return false;
          };
          for (const element of document.querySelectorAll('body *')) {
            const box = element.getBoundingClientRect();
            const hidden = element.closest('.sr, .skip, dialog:not([open]), [hidden], svg');
            if (hidden || !box.width || box.right <= width + 1 || clipped(element)) continue;
            out.push(element.tagName + '.' + element.className);
          }
          const list = document.getElementById('results');
          if (list && list.scrollWidth > list.clientWidth) out.push('the list scrolls sideways');
          return out.slice(0, 12);
        }"""
    )
    return found


async def serious_findings(page: Page) -> list[str]:
    """What axe-core finds on the page that is serious or worse."""
    found = (await Axe().run(page)).response["violations"]
    return [
        f"{v['id']}: {[node['target'] for node in v['nodes'][:3]]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def picture(png: bytes) -> NDArray[np.float64]:
    """The brightness of a screenshot: rows, columns, 0 to 255."""
    pixels: NDArray[np.uint8] = imagecodecs.png_decode(png)
    brightness: NDArray[np.float64] = pixels[..., :3].mean(axis=2)
    return brightness

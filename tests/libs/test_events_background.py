"""A service that stops finishes the batch it has in hand, and never waits longer for it than it said."""

import asyncio

import pytest
from structlog.testing import capture_logs

from libs.events import in_background


async def test_the_batch_under_way_is_finished() -> None:
    """Otherwise each restart would do work twice."""
    finished = asyncio.Event()

    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(0)
        finished.set()

    async with in_background(work, "work", grace=30):
        assert not finished.is_set()
    assert finished.is_set()


async def test_work_that_does_not_finish_is_cancelled() -> None:
    """Otherwise a service would hang at its end until somebody kills it."""
    cancelled = asyncio.Event()

    async def work(_: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with in_background(work, "work"):
        await asyncio.sleep(0)
    assert cancelled.is_set()


async def test_work_that_fails_is_told_of_and_leaves_the_service_up() -> None:
    """A consumer that died unheard would leave new images unseen."""

    async def work(_: asyncio.Event) -> None:
        raise RuntimeError("a fault of the program")

    with capture_logs() as logs:
        async with in_background(work, "instances.stored"):
            await asyncio.sleep(0.01)
    assert [(line["log_level"], line["work"]) for line in logs] == [("critical", "instances.stored")]


async def test_an_error_of_the_service_ends_the_work_too() -> None:
    async def work(stop: asyncio.Event) -> None:
        await stop.wait()

    with pytest.raises(ValueError, match="of the service"):
        async with in_background(work, "work", grace=30):
            raise ValueError("of the service")

"""A damaged image costs a process, not the service."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from libs.web.problems import Unavailable
from services.dicomweb.errors import CannotDecode
from services.dicomweb.workers import Workers
from tests.services.dicomweb.jobs import crash, double, eat, fail, hang, process, refuse


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    found = Workers(1, seconds=3, waiting=2, jobs=100)
    yield found
    await found.close()


async def test_the_next_image_is_shown_whatever_the_last_one_did(workers: Workers) -> None:
    """One bad file among thousands must not stop the reading."""
    assert await workers.run(double, 2) == 4
    for bad in (crash, refuse, fail, eat):
        with pytest.raises(CannotDecode):
            await workers.run(bad)
        assert await workers.run(double, 3) == 6
    with pytest.raises(CannotDecode, match="cut short"):
        await workers.run(refuse)


async def test_an_image_that_hangs_is_given_up(workers: Workers) -> None:
    """Nobody waits for ever."""
    started = time.monotonic()
    with pytest.raises(CannotDecode, match="too long"):
        await workers.run(hang)
    assert time.monotonic() - started < 10
    assert await workers.run(double, 3) == 6


async def test_the_queue_is_bounded(workers: Workers) -> None:
    """Too many at once are told to come back, and memory does not grow."""
    jobs = [asyncio.create_task(workers.run(time.sleep, 0.3)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await workers.run(double, 1)
    await asyncio.gather(*jobs)


async def test_a_process_is_replaced_after_a_number_of_jobs() -> None:
    """What leaks in a codec is given back."""
    workers = Workers(1, jobs=2)
    pids = [await workers.run(process) for _ in range(3)]
    await workers.close()
    assert pids[0] == pids[1] != pids[2]


async def test_a_caller_that_goes_away_does_not_keep_the_process(workers: Workers) -> None:
    """Scrolling past thumbnails must not block those that follow."""
    task = asyncio.create_task(workers.run(time.sleep, 0.3))
    await asyncio.sleep(0.1)
    task.cancel()
    assert await workers.run(double, 4) == 8

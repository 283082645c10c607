"""Work on events that goes on beside a service's requests, as long as the service does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

_LAST_WAIT: Final = 10.0
"""Seconds for work that was cancelled to let go of what it holds."""
_log = structlog.get_logger(__name__)


@asynccontextmanager
async def in_background(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], name: str, *, grace: float = 0
) -> AsyncIterator[None]:
    """Runs ``work`` until the block ends.

    Arguments:
        work: is given the event that tells it to finish.
        name: what the log calls it.
        grace: seconds that it has to finish by itself; then it is cancelled.
    """
    stop = asyncio.Event()
    task = asyncio.create_task(work(stop), name=name)
    task.add_done_callback(_tell_failure)
    try:
        yield
    finally:
        stop.set()
        if grace:
            await asyncio.wait({task}, timeout=grace)
        task.cancel()
        await asyncio.wait({task}, timeout=_LAST_WAIT)


def _tell_failure(task: asyncio.Task[None]) -> None:
    """Work that ends by an error is gone until the service starts anew, so somebody has to hear of it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("work in the background ended", work=task.get_name(), exc_info=error)

"""The loop that takes batches from the backlog to the cloud, and waits while the line is away."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from services.edge_gateway.domain import Backlog, Instance, SeriesKey, Verdict, pause
from services.edge_gateway.errors import CloudAway
from services.edge_gateway.handlers import Cloud, forget_stored, forward_batch, set_refused
from services.edge_gateway.spool import Spool
from services.edge_gateway.store import Journal

_DOUBTS_ALLOWED: Final = 10
_OWN_TROUBLE_PAUSE: Final = 5.0
_PROBE_EVERY: Final = 1.5
_SHRINK_AFTER: Final = 2

_FORWARDED = Counter("lightbox_edge_forwarded_total", "Instances that the cloud has proven to keep")
_FORWARDED_BYTES = Counter("lightbox_edge_forwarded_bytes_total", "Bytes of them")
_REFUSED = Counter("lightbox_edge_refused_by_cloud_total", "Instances that the cloud will not take")
_FAILURES = Counter("lightbox_edge_upload_failures_total", "Batches that did not get through")
_SECONDS = Histogram(
    "lightbox_edge_spooled_seconds",
    "Time from the acknowledgement to the scanner to that of the cloud",
    buckets=(0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400),
)
_log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[bool]]
"""Whether a connection to the cloud can be made now."""


@dataclass
class Line:
    """What is known of the way to the cloud.

    Attributes:
        failures: batches that failed since the last one that got through.
        not_before: when the next one may go, on the monotonic clock.
        unreachable: not even a connection could be made.
        last_success: seconds since 1970, or None.
        last_error: in words, or an empty text.
        last_error_time: seconds since 1970, or None.
    """

    failures: int = 0
    not_before: float = 0.0
    unreachable: bool = False
    last_success: float | None = None
    last_error: str = ""
    last_error_time: float | None = None

    def succeeded(self) -> None:
        """A batch got through."""
        if self.failures:
            _log.info("the cloud is back", failures=self.failures)
        self.failures = 0
        self.unreachable = False
        self.last_success = time.time()

    def failed(self, error: CloudAway) -> None:
        """A batch did not get through."""
        self.failures += 1
        wait = pause(self.failures, random.random())
        if error.retry_after is not None:
            wait = error.retry_after * (1 + 0.1 * random.random())
        self.not_before = time.monotonic() + wait
        self.unreachable = error.unreachable
        self.last_error = error.reason
        self.last_error_time = time.time()
        _FAILURES.inc()
        _log.warning("a batch did not get through", reason=error.reason, again_in=round(wait, 1))


class Forwarder:
    """Forwards what waits. One event loop owns it.

    Arguments:
        cloud: takes the batches.
        spool: where the files are.
        journal: what waits is written there.
        backlog: what waits, by series.
        uploads: how many batches at once.
        batch_instances: the most instances in a batch.
        probe: asks whether the cloud can be reached, to try again soon after an outage of the line.
    """

    def __init__(
        self,
        cloud: Cloud,
        spool: Spool,
        journal: Journal,
        backlog: Backlog,
        *,
        uploads: int,
        batch_instances: int,
        probe: Probe,
    ) -> None:
        self._cloud = cloud
        self._spool = spool
        self._journal = journal
        self._backlog = backlog
        self._uploads = uploads
        self._batch_instances = batch_instances
        self._probe = probe
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._trial = asyncio.Lock()
        self._attempts: dict[int, int] = {}
        self._arrivals: deque[tuple[SeriesKey, int, int]] = deque()
        self._arriving = False
        self.line = Line()

    def arrived(self, series: SeriesKey, sequence: int, size: int) -> None:
        """An instance waits from now on. Any thread may call this."""
        self._arrivals.append((series, sequence, size))
        if not self._arriving:
            # One call for all that arrive until it runs: waking the loop for each costs more than the rest of it.
            self._arriving = True
            self._loop.call_soon_threadsafe(self._add_arrivals)

    def _add_arrivals(self) -> None:
        self._arriving = False
        now = time.monotonic()
        while self._arrivals:
            series, sequence, size = self._arrivals.popleft()
            self._attempts.pop(sequence, None)
            self._backlog.add(series, sequence, size, now)
        self._wake.set()

    async def run(self) -> None:
        """Forwards until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._uploads):
                group.create_task(self._work())

    async def _work(self) -> None:
        """One upload after another. While the line fails, a single one tries and the others wait for it."""
        while True:
            try:
                if self.line.failures:
                    async with self._trial:
                        if self.line.failures:
                            await self._wait_for_line()
                            await self._forward_next()
                else:
                    await self._forward_next()
            except Exception as error:
                _log.error("forwarding failed; it goes on", exc_info=error)
                await asyncio.sleep(_OWN_TROUBLE_PAUSE)

    async def _wait_for_line(self) -> None:
        while (left := self.line.not_before - time.monotonic()) > 0:
            if not self.line.unreachable:
                await asyncio.sleep(left)
                return
            await asyncio.sleep(min(left, _PROBE_EVERY))
            if left > _PROBE_EVERY and await self._probe():
                return

    async def _forward_next(self) -> None:
        numbers = await self._claim()
        batch: list[Instance] = []
        try:
            batch = await asyncio.to_thread(self._journal.load, numbers)
            verdicts = await forward_batch(self._cloud, batch)
        except CloudAway as error:
            self._put_back(batch, 0.0)
            self.line.failed(error)
            return
        except Exception:
            self._put_back(batch, _OWN_TROUBLE_PAUSE)
            raise
        self.line.succeeded()
        await self._settle(batch, verdicts)

    async def _claim(self) -> list[int]:
        """Waits for a batch. After failures it gets smaller, in case its size is the reason."""
        while True:
            now = time.monotonic()
            shrink = max(0, self.line.failures - _SHRINK_AFTER)
            numbers = self._backlog.claim(now, most=max(1, self._batch_instances >> shrink))
            if numbers:
                return numbers
            self._wake.clear()
            ready = self._backlog.next_ready(now)
            try:
                async with asyncio.timeout(None if ready is None else max(0.01, ready - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _put_back(self, batch: Sequence[Instance], wait: float) -> None:
        for instance in batch:
            self._backlog.put_back(instance.series, instance.sequence, instance.size, time.monotonic() + wait)

    async def _settle(self, batch: Sequence[Instance], verdicts: dict[int, Verdict]) -> None:
        """Acts on what the cloud said of each instance."""
        stored = [instance for instance in batch if verdicts[instance.sequence].fate == "stored"]
        reasons: dict[int, str] = {}
        for instance in batch:
            verdict = verdicts[instance.sequence]
            if verdict.fate == "refused":
                reasons[instance.sequence] = verdict.reason
            elif verdict.fate in ("again", "doubtful"):
                self._again(instance, verdict, reasons)
        try:
            await forget_stored(self._spool, self._journal, stored)
            if reasons:
                await set_refused(self._spool, self._journal, batch, reasons)
        except Exception:
            # The entries are as they were: sending again is harmless.
            self._put_back([*stored, *(i for i in batch if i.sequence in reasons)], _OWN_TROUBLE_PAUSE)
            raise
        for instance in stored:
            self._attempts.pop(instance.sequence, None)
            _SECONDS.observe(max(0.0, time.time() - instance.received))
            _FORWARDED_BYTES.inc(instance.size)
        _FORWARDED.inc(len(stored))
        for sequence, reason in reasons.items():
            self._attempts.pop(sequence, None)
            _REFUSED.inc()
            _log.warning("the cloud refused an instance; it stays in the spool", sequence=sequence, reason=reason)

    def _again(self, instance: Instance, verdict: Verdict, reasons: dict[int, str]) -> None:
        """Puts an instance off, or gives up on one that was doubtful too often."""
        attempts = self._attempts.get(instance.sequence, 0) + 1
        self._attempts[instance.sequence] = attempts
        self.line.last_error, self.line.last_error_time = verdict.reason, time.time()
        if verdict.fate == "doubtful" and attempts >= _DOUBTS_ALLOWED:
            reasons[instance.sequence] = f"{verdict.reason}, {attempts} times"
            return
        self._put_back([instance], pause(attempts, random.random()))

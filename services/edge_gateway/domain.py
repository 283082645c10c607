"""Pure rules: which instances go together, when they go, and what an answer of the cloud means for each."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)

SeriesKey = tuple[str, str]
"""Study and Series Instance UID."""


@dataclass(frozen=True)
class Instance:
    """One instance in the spool.

    Attributes:
        sequence: its number in the journal, in order of arrival.
        sop_instance_uid: (0008,0018).
        study_uid: (0020,000D).
        series_uid: (0020,000E).
        file: name of the file in the spool that holds it.
        size: its length in bytes.
        sha256: its SHA-256, hexadecimal.
        received: when it was acknowledged, seconds since 1970.
        offset: where in the file its Part 10 file begins.
    """

    sequence: int
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    file: str
    size: int
    sha256: str
    received: float
    offset: int

    @property
    def series(self) -> SeriesKey:
        """What it is batched by."""
        return self.study_uid, self.series_uid


@dataclass(frozen=True)
class BatchRule:
    """When a series is ready to go, and how much of it goes at once.

    Attributes:
        instances: the most instances in a batch.
        bytes: the most bytes in a batch; a larger instance goes alone.
        quiet: seconds without a new instance after which the series goes.
        age: seconds after which its oldest instance goes in any case.
    """

    instances: int = 100
    bytes: int = 64 << 20
    quiet: float = 0.3
    age: float = 2.0


@dataclass
class _Series:
    """What waits of one series: sequence number → bytes, in order of arrival."""

    waiting: dict[int, int] = field(default_factory=dict)
    bytes: int = 0
    first: float = 0.0
    last: float = 0.0


class Backlog:
    """What waits to be forwarded, by series. Not safe for threads: one event loop owns it.

    Times are seconds of one monotonic clock, given by the caller.
    """

    def __init__(self, rule: BatchRule) -> None:
        self._rule = rule
        self._series: dict[SeriesKey, _Series] = {}
        self._later: list[tuple[float, int, SeriesKey, int]] = []

    def __len__(self) -> int:
        return sum(len(series.waiting) for series in self._series.values()) + len(self._later)

    def add(self, series: SeriesKey, sequence: int, size: int, now: float) -> None:
        """An instance arrived."""
        entry = self._series.setdefault(series, _Series(first=now))
        entry.waiting[sequence] = size
        entry.bytes += size
        entry.last = now

    def put_back(self, series: SeriesKey, sequence: int, size: int, not_before: float) -> None:
        """An instance must go again, at ``not_before`` or later."""
        heapq.heappush(self._later, (not_before, sequence, series, size))

    def claim(self, now: float, *, most: int = 1 << 30) -> list[int]:
        """Takes the next batch: sequence numbers of one series, oldest first; empty when nothing is ready.

        Arguments:
            now: the time.
            most: instances at most, where that is less than the rule says.
        """
        self._revive(now)
        ready = [
            (next(iter(entry.waiting)), key) for key, entry in self._series.items() if self._ready_at(entry) <= now
        ]
        if not ready:
            return []
        return self._take(min(ready)[1], now, min(most, self._rule.instances))

    def next_ready(self, now: float) -> float | None:
        """When something will be ready if nothing else arrives; None when nothing waits."""
        times = [self._ready_at(entry) for entry in self._series.values()]
        if self._later:
            times.append(self._later[0][0])
        return max(now, min(times)) if times else None

    def _ready_at(self, entry: _Series) -> float:
        if len(entry.waiting) >= self._rule.instances or entry.bytes >= self._rule.bytes:
            return entry.first
        return min(entry.last + self._rule.quiet, entry.first + self._rule.age)

    def _revive(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, sequence, series, size = heapq.heappop(self._later)
            entry = self._series.setdefault(series, _Series(first=now - self._rule.age))
            entry.waiting[sequence] = size
            entry.bytes += size
            entry.first = min(entry.first, now - self._rule.age)

    def _take(self, key: SeriesKey, now: float, most: int) -> list[int]:
        entry = self._series[key]
        batch: list[int] = []
        total = 0
        for sequence, size in entry.waiting.items():
            if batch and (len(batch) >= most or total + size > self._rule.bytes):
                break
            batch.append(sequence)
            total += size
        for sequence in batch:
            del entry.waiting[sequence]
        entry.bytes -= total
        if entry.waiting:
            entry.first = now
        else:
            del self._series[key]
        return batch


Fate = Literal["stored", "refused", "again", "doubtful"]
"""What the cloud's answer means for one instance: it is there; it will never be; later; not proven, later."""


@dataclass(frozen=True)
class Verdict:
    """What the cloud's answer means for one instance.

    Attributes:
        fate: see ``Fate``; ``doubtful`` is tried again a limited number of times.
        reason: in words, for people; empty when stored.
        code: the failure reason of the answer (PS3.18 table 10.5.3-2), 0 when there is none.
    """

    fate: Fate
    reason: str = ""
    code: int = 0


@dataclass(frozen=True)
class Answer:
    """What a STOW-RS answer says, by SOP Instance UID.

    Attributes:
        stored: SHA-256 that the cloud names for what it keeps; empty when it names none.
        failed: failure reasons.
    """

    stored: Mapping[str, str]
    failed: Mapping[str, int]


def judge(instance: Instance, answer: Answer) -> Verdict:
    """What an answer means for one instance of the batch.

    An instance counts as stored only when the cloud names its UID together with the SHA-256 of the spooled file.
    """
    uid = instance.sop_instance_uid
    if uid in answer.stored:
        if answer.stored[uid].lower() == instance.sha256:
            return Verdict("stored")
        if answer.stored[uid]:
            return Verdict("doubtful", "the cloud names another SHA-256 than the spooled file has")
        return Verdict("doubtful", "the cloud did not say which bytes it keeps")
    if uid not in answer.failed:
        return Verdict("doubtful", "the cloud's answer does not name this instance")
    code = answer.failed[uid]
    if code in _OUT_OF_RESOURCES:
        return Verdict("again", f"{reason_in_words(code)} ({code:04X})", code)
    if code == PROCESSING_FAILURE:
        return Verdict("doubtful", f"{reason_in_words(code)} ({code:04X})", code)
    return Verdict("refused", f"{reason_in_words(code)} ({code:04X})", code)


_REASONS: Final = {
    0x0110: "the cloud could not process it",
    0x0111: "the cloud has an instance of this UID with other bytes, and takes no other one",
    0x0117: "the SOP Instance UID is not valid",
    0x0122: "the SOP class is not supported",
    0x0124: "not authorised",
    0x0272: "the transfer syntax is not supported",
}


def reason_in_words(code: int) -> str:
    """A failure reason of STOW-RS or a status of C-STORE in plain words (PS3.18 table 10.5.3-2, PS3.4 B.2.3)."""
    if code in _REASONS:
        return _REASONS[code]
    if code in _OUT_OF_RESOURCES:
        return "out of resources"
    if 0xA900 <= code <= 0xA9FF:
        return "the data set does not match its SOP class or study"
    if 0xC000 <= code <= 0xCFFF:
        return "the data set can't be understood"
    return "refused"


def pause(attempt: int, spread: float, *, first: float = 0.5, longest: float = 60.0) -> float:
    """Seconds to wait before attempt number ``attempt + 1``: doubling, bounded, with jitter.

    Arguments:
        attempt: how many attempts have failed, from 1.
        spread: a random number from 0 to 1.
        first: the pause after the first failure.
        longest: the longest pause.
    """
    full = min(longest, first * float(2 ** min(attempt - 1, 16)))
    return full * (0.5 + 0.5 * spread)


def without_repeats(instances: Iterable[Instance]) -> tuple[list[Instance], list[Instance]]:
    """Splits a batch so that no SOP Instance UID occurs twice in the first list, since answers go by UID."""
    first: dict[str, Instance] = {}
    rest: list[Instance] = []
    for instance in instances:
        if instance.sop_instance_uid in first:
            rest.append(instance)
        else:
            first[instance.sop_instance_uid] = instance
    return list(first.values()), rest

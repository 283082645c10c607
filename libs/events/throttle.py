"""Holding back audit records that only repeat, so that who is refused again and again can't flood the record."""

from collections import OrderedDict


class Throttle:
    """Lets one of many equal things through in an interval, and counts the others.

    Arguments:
        seconds: the interval.
        size: keys remembered; the oldest is forgotten first.
        most: how many are let through in an interval, whatever their keys.
    """

    def __init__(self, seconds: float = 60, size: int = 4096, most: int = 1000) -> None:
        self._seconds = seconds
        self._size = size
        self._most = most
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._interval = float("-inf")
        self._passed = 0
        self._held_in_all = 0

    def admit(self, key: str, now: float) -> int | None:
        """How many were held back since the last that was let through, or None when this one is held back.

        Those of other keys that were held back because there were too many in all are counted with the next.

        Arguments:
            key: what makes them equal.
            now: a monotonic time in seconds.
        """
        last, held = self._seen.get(key, (float("-inf"), 0))
        if now - last < self._seconds:
            self._seen[key] = (last, held + 1)
            return None
        if now - self._interval >= self._seconds:
            self._interval, self._passed = now, 0
        if self._passed >= self._most:
            self._held_in_all += 1
            return None
        self._passed += 1
        held, self._held_in_all = held + self._held_in_all, 0
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return held

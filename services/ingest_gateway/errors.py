"""Errors that carry their outcome."""

from http import HTTPStatus

from libs.web.problems import Problem, Unavailable


class StorageFull(Unavailable):
    """The disk of the spool has no room (C-STORE and STOW-RS call it 0xA700, out of resources)."""

    title = "Out of resources"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after=60)


class Busy(Unavailable):
    """As many requests are under way as can be served at once."""

    title = "Too many uploads at once"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after=3)


class NotDurable(Unavailable):
    """Nothing of the request could be made durable, so nothing is acknowledged; sending it again is safe."""

    title = "Nothing was stored"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after=10)


class SlowSender(Problem):
    """The body came too slowly, or not at all."""

    status = HTTPStatus.REQUEST_TIMEOUT
    title = "The body did not arrive in time"


class SenderGone(Problem):
    """The connection ended before the body did. Nobody is left to read the answer; it is for the record."""

    status = HTTPStatus.BAD_REQUEST
    title = "The connection ended before the body did"

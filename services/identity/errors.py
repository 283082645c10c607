"""Errors that carry their HTTP answer."""

from http import HTTPStatus
from typing import ClassVar

from libs.web.problems import BadRequest, Forbidden, Problem, TooManyRequests, Unauthorized, Unavailable


class WrongCredentials(Unauthorized):
    """The name or the password is wrong; which of them is not said."""

    title = "The name or the password is wrong"


class LockedOut(TooManyRequests):
    """Too many log-ins failed; further ones are not even looked at for a while.

    Arguments:
        seconds: how long to wait.
    """

    title = "Too many failed log-ins"

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"Too many log-ins have failed. Try again in {in_words(seconds)}.", headers={"Retry-After": str(seconds)}
        )
        self.seconds = seconds


class TenantSuspended(Forbidden):
    """The clinic's access is suspended."""

    title = "The access of this clinic is suspended"


class SessionEnded(Unauthorized):
    """The browser's session has ended: logged out, idle for too long, or the account was changed."""

    title = "The session has ended"


class InvalidInput(BadRequest):
    """Something that was given breaks a rule; the detail says which."""

    title = "That can't be taken as it is"


class KeysUnavailable(Unavailable):
    """No signing key could be loaded yet."""


class TokenRefused(Problem):
    """An answer of the token endpoint (RFC 6749 section 5.2).

    Arguments:
        code: the error code of the standard.
        detail: what is wrong, in words.
        status: 400, or 401 for ``invalid_client``.
        retry_after: seconds to wait, where waiting helps.
    """

    status: ClassVar[int] = HTTPStatus.BAD_REQUEST
    title = "No token"

    def __init__(self, code: str, detail: str, *, status: int = 400, retry_after: int | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)} if retry_after else None)
        self.code = code
        self.answer_status = status


def in_words(seconds: int) -> str:
    """A waiting time for people: seconds up to a minute and a half, then minutes, rounded up."""
    if seconds <= 90:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{-(-seconds // 60)} minutes"

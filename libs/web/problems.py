"""Errors as ``application/problem+json`` (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from fastapi.responses import JSONResponse


class Problem(Exception):
    """An error that knows its HTTP answer. Subclasses set ``status`` and ``title``.

    Arguments:
        detail: what is wrong and what helps, for the caller to read. Never patient data, never a secret.
        headers: further headers of the answer, such as ``Retry-After``.
    """

    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR
    title: ClassVar[str] = "Something went wrong here"

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = dict(headers or {})


class BadRequest(Problem):
    """The request can't be understood."""

    status = HTTPStatus.BAD_REQUEST
    title = "The request can't be understood"


class Unauthorized(Problem):
    """Nobody is logged in, or the token is not valid."""

    status = HTTPStatus.UNAUTHORIZED
    title = "Log in first"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    """The caller is known and may not do this."""

    status = HTTPStatus.FORBIDDEN
    title = "Not allowed"


class NotFound(Problem):
    """There is no such thing, or it belongs to another tenant: the two answers are the same."""

    status = HTTPStatus.NOT_FOUND
    title = "Not found"


class Conflict(Problem):
    """The state of the thing does not allow it."""

    status = HTTPStatus.CONFLICT
    title = "Conflict"


class TooLarge(Problem):
    """The body is larger than allowed."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "Too large"


class NotAcceptable(Problem):
    """None of the media types asked for can be given."""

    status = HTTPStatus.NOT_ACCEPTABLE
    title = "Not acceptable"


class UnsupportedMediaType(Problem):
    """The body has a media type that is not taken."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    title = "Unsupported media type"


class TooManyRequests(Problem):
    """The caller has to slow down."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too many requests"


class Unavailable(Problem):
    """Something that is needed is away; try again later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Not available at the moment"

    def __init__(self, detail: str = "", *, retry_after: int = 5) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


def problem_response(
    status: int, title: str, detail: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A ``problem+json`` answer."""
    body: dict[str, str | int] = {"type": "about:blank", "title": title, "status": int(status)}
    if detail:
        body["detail"] = detail
    return JSONResponse(body, status, dict(headers or {}), media_type="application/problem+json")

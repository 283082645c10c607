"""What can go wrong here, each with its answer."""

from http import HTTPStatus

from libs.web.problems import NotAcceptable, NotFound, Problem


class NoSuchResource(NotFound):
    """Nothing under these identifiers, or another tenant's: the two answers are the same."""

    def __init__(self) -> None:
        super().__init__("There is no such resource.")


class Damaged(Problem):
    """What the object store gave back is not what was stored; it is not served."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    title = "The stored data is damaged"

    def __init__(self, detail: str = "It does not match its checksum, so it is not given out.") -> None:
        super().__init__(detail)


class CannotDecode(NotAcceptable):
    """The pixels can't be turned into what was asked for."""

    title = "This image can't be converted"


class TooMuchWork(Problem):
    """The search would take longer than a search may."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "The search is too wide"

    def __init__(self) -> None:
        super().__init__("It took longer than a search may: narrow it, or search within a study.")

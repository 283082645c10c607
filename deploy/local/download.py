"""What is downloaded: once for all checkouts of a user, and never used unless its hash is the recorded one."""

import hashlib
from pathlib import Path
from typing import Protocol


class DownloadFailed(Exception):
    """Something could not be fetched, or is not what was expected; the text says what helps."""


class Progress(Protocol):
    """Is told how far a download has come."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` pieces of ``what`` are there."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""


def file_hash(path: Path, algorithm: str) -> str:
    """The file's hash in hexadecimal.

    Arguments:
        path: the file.
        algorithm: a name that hashlib knows, such as ``sha256``.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()

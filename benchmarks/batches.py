"""Bodies of STOW-RS requests, made new again and again at little cost: only the last digits of the UIDs change."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

BOUNDARY = "benchmark-boundary-9f2e"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
_DIGITS = 12


@dataclass(frozen=True)
class Batch:
    """One request's body, and what it holds.

    Attributes:
        body: the body.
        study: Study Instance UID.
        series: Series Instance UID.
        files: where each file begins and ends in the body.
    """

    body: bytearray
    study: str
    series: str
    files: tuple[tuple[int, int], ...]

    @property
    def hashes(self) -> frozenset[str]:
        """SHA-256 of the files."""
        view = memoryview(self.body)
        return frozenset(hashlib.sha256(view[start:end]).hexdigest() for start, end in self.files)


class Template:
    """A series as the body of a request, of which new ones are made.

    Arguments:
        files: the files of one series.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        head = dcmread(files[0], stop_before_pixels=True)
        self._study, self._series = str(head.StudyInstanceUID), str(head.SeriesInstanceUID)
        self._files: list[tuple[int, int]] = []
        self._places: list[tuple[int, int]] = []  # where digits are, and of which file; 0: of the study or series
        body = bytearray()
        for number, path in enumerate(files, 1):
            content = path.read_bytes()
            body += f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            start = len(body)
            body += content + b"\r\n"
            self._files.append((start, start + len(content)))
            own = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            for uid, whose in ((self._study, 0), (self._series, 0), (own, number)):
                at = content.find(uid.encode())
                while at >= 0:
                    self._places.append((start + at + len(uid) - _DIGITS, whose))
                    at = content.find(uid.encode(), at + 1)
        self._body = bytes(body + f"--{BOUNDARY}--\r\n".encode())

    @property
    def size(self) -> int:
        """Bytes of a body."""
        return len(self._body)

    def fresh(self, number: int) -> Batch:
        """A series that nobody has stored yet.

        Arguments:
            number: one that was not used before, of eight digits at most.
        """
        body = bytearray(self._body)
        for at, whose in self._places:
            body[at : at + _DIGITS] = f"{number % 10**8:08}{whose:04}".encode()
        digits = f"{number % 10**8:08}0000"
        return Batch(body, self._study[:-_DIGITS] + digits, self._series[:-_DIGITS] + digits, tuple(self._files))

"""The sender's own ledger: what it was told is stored. Whatever is in it and can't be had again is a lost image."""

import hashlib
import json
import os
import threading
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from libs.dicom.part10 import read_file_meta


def data_set_hash(part10: bytes) -> str:
    """SHA-256 of what C-STORE carries: everything after the file meta information."""
    return hashlib.sha256(part10[read_file_meta(part10).dataset_offset :]).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One acknowledgement.

    Attributes:
        run: the run in which it was sent.
        tenant: to whom.
        study: Study Instance UID.
        series: Series Instance UID.
        instance: SOP Instance UID.
        data_set: SHA-256 of the data set as sent.
        file: SHA-256 of the whole Part 10 file, where the door takes files; else empty.
        by_cloud: the cloud itself has acknowledged it, so it came before whatever was sent afterwards.
    """

    run: int
    tenant: str
    study: str
    series: str
    instance: str
    data_set: str
    file: str
    by_cloud: bool


class Ledger:
    """Acknowledgements, each on disk before it counts.

    Arguments:
        path: the file; one that is there is gone on with.

    Attributes:
        entries: in the order of their acknowledgement, repeated ones among them.
    """

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        if path.exists():
            self.entries = [Entry(**json.loads(line)) for line in path.read_text().splitlines()]
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def acknowledge(self, entry: Entry) -> None:
        """Enters one acknowledgement."""
        with self._lock:
            os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")
            os.fsync(self._file)
            self.entries.append(entry)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sent:
    """The bytes that were sent, acknowledged or not: by tenant and SOP Instance UID, hashes of data sets."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[str, str], set[str]] = defaultdict(set)

    def add(self, tenant: str, instance: str, data_set: str) -> None:
        """Notes an instance; to be called before it is sent."""
        self._hashes[tenant, instance].add(data_set)

    def hashes(self, tenant: str, instance: str) -> set[str]:
        """What was sent to the tenant under this UID."""
        return self._hashes.get((tenant, instance), set())

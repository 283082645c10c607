"""The doors through which images come in, each with a sender that says what was acknowledged."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import httpx

from cli.storage_scu import DicomFile, NotConnected, Peer, find_files, send_files
from deploy.local.certificates import Credential
from tests.services.ingest_gateway.instances import SHA256, STORED, UID, multipart, sha256, values
from tests.services.ingest_gateway.instances import TYPE as MULTIPART
from tests.system.chaos.batches import Image

_ANSWERED: Final = re.compile(r"Sending file: (?P<file>.+)|Received Store Response \((?P<status>[^)]*)\)")


class Door(Protocol):
    """A way in.

    Attributes:
        name: what it is called in reports.
        by_cloud: whether the cloud itself acknowledges.
        takes_files: whether it takes whole Part 10 files and says by which SHA-256 it keeps them.
    """

    name: str
    by_cloud: bool
    takes_files: bool

    def send(self, images: Sequence[Image], folder: Path, acknowledged: Callable[[Image], None]) -> int:
        """Sends each image once.

        Arguments:
            images: what to send, no UID twice.
            folder: for files on their way.
            acknowledged: is told of each image that was acknowledged.

        Returns:
            how many were refused or not answered.
        """


class Dcmtk:
    """C-STORE by DCMTK's storescu, as scanners send: small PDUs, Nagle's algorithm on. To an edge, or over TLS to the
    cloud.

    Arguments:
        port: where to.
        called: the called AE title.
        tls: what it shows, and the authority that it trusts.
    """

    takes_files = False

    def __init__(self, port: int, called: str, tls: tuple[Credential, Path] | None = None) -> None:
        self.name = "tls" if tls else "dcmtk"
        self.by_cloud = tls is not None
        secure = ["+tls", str(tls[0].key), str(tls[0].certificate), "+cf", str(tls[1])] if tls else []
        self._where = ("-aec", called, *secure, "127.0.0.1", str(port))

    def send(self, images: Sequence[Image], folder: Path, acknowledged: Callable[[Image], None]) -> int:
        """See ``Door``."""
        files = {str(path): image for path, image in write_files(images, folder).items()}
        command = ["storescu", "-v", "-nh", "-to", "5", "-ta", "10", "-td", "15", *self._where, *files]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        taken = 0
        current: Image | None = None
        for found in _ANSWERED.finditer(done.stdout + done.stderr):
            if found["file"]:
                current = files.get(found["file"].strip())
            elif current is not None and found["status"].startswith(("Success", "Warning")):
                acknowledged(current)
                taken += 1
                current = None
        return len(images) - taken


class OwnScu:
    """C-STORE to an edge by ``lightbox send``: large PDUs, the data set's bytes as they are."""

    name = "send"
    by_cloud = False
    takes_files = False

    def __init__(self, port: int, called: str) -> None:
        self._peer = Peer("127.0.0.1", port, called, "CHAOS")

    def send(self, images: Sequence[Image], folder: Path, acknowledged: Callable[[Image], None]) -> int:
        """See ``Door``."""
        paths = write_files(images, folder)
        files, _ = find_files(paths)
        taken = 0

        def progress(file: DicomFile, was_taken: bool) -> None:
            nonlocal taken
            if was_taken:
                acknowledged(paths[file.path])
                taken += 1

        try:
            send_files(files, self._peer, progress=progress)
        except NotConnected:
            return len(images)
        return len(images) - taken


class Stow:
    """STOW-RS at the front door."""

    name = "stow"
    by_cloud = True
    takes_files = True

    def __init__(self, port: int, token: Callable[[], str]) -> None:
        self._url = f"http://127.0.0.1:{port}/dicom-web/studies"
        self._token = token

    def send(self, images: Sequence[Image], folder: Path, acknowledged: Callable[[Image], None]) -> int:
        """See ``Door``; an answer counts only with the SHA-256 of what was sent."""
        body = multipart(image.content for image in images)
        try:
            headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": MULTIPART}
            answer = httpx.post(self._url, content=body, headers=headers, timeout=15)
        except (httpx.HTTPError, OSError):
            return len(images)
        if answer.status_code not in (200, 202):
            return len(images)
        named = dict(zip(values(answer.json(), STORED, UID), values(answer.json(), STORED, SHA256), strict=True))
        taken = [image for image in images if named.get(image.instance) == sha256(image.content)]
        for image in taken:
            acknowledged(image)
        return len(images) - len(taken)


def write_files(images: Sequence[Image], folder: Path) -> dict[Path, Image]:
    """The images as files, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{number}.dcm": image for number, image in enumerate(images)}
    for path, image in paths.items():
        path.write_bytes(image.content)
    return paths

"""Senders over TLS, as a clinic's devices send to the cloud's own DICOM door."""

import io
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from deploy.local.certificates import Credential
from libs.dicom import DicomError, read_header
from libs.dicom.part10 import read_file_meta

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
_config.LOG_HANDLER_LEVEL = "none"


def needed(program: str) -> str:
    """The program; without it the test is skipped, or fails under CI=true."""
    if shutil.which(program) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")
    return program


def client_context(ca: Path, credential: Credential | None) -> ssl.SSLContext:
    """How a client speaks TLS: whom it trusts, and what it shows, if anything."""
    context = ssl.create_default_context(cafile=ca)
    if credential is not None:
        context.load_cert_chain(credential.certificate, credential.key)
    return context


@dataclass(frozen=True)
class Sender:
    """Somebody who sends to the door.

    Attributes:
        ca: the authority that it trusts.
        port: of the door.
        called: what it calls the door.
        credential: what it shows; none, for one that shows nothing.
        calling: what it calls itself.
    """

    ca: Path
    port: int
    called: str
    credential: Credential | None
    calling: str = "SCANNER"

    @contextmanager
    def association(self, contexts: Sequence[tuple[str, str]] = ((CT, EXPLICIT),)) -> Iterator[Association]:
        """An association by pynetdicom, made or refused."""
        entity = AE(ae_title=self.calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
        for sop_class, syntax in dict.fromkeys(contexts):
            entity.add_requested_context(sop_class, syntax)
        opened: list[ssl.SSLSocket] = []
        context = client_context(self.ca, self.credential)
        wrap = context.wrap_socket

        def remember(*arguments: Any, **options: Any) -> ssl.SSLSocket:
            opened.append(wrap(*arguments, **options))
            return opened[-1]

        context.wrap_socket = remember  # type: ignore[method-assign]
        made = entity.associate("127.0.0.1", self.port, ae_title=self.called, tls_args=(context, "localhost"))
        try:
            yield made
        finally:
            if made.is_established:
                made.release()
            for connection in opened:
                connection.close()  # pynetdicom leaves one that the door closed first to the garbage collector

    def send(self, *paths: Path) -> list[int]:
        """The statuses of a C-STORE of each file, byte for byte; -1 where there was no answer."""
        files = [path.read_bytes() for path in paths]
        with self.association([identity_of(file)[:2] for file in files]) as association:
            assert association.is_established
            return [store(association, file) for file in files]

    def rejection(self) -> tuple[int, int, int]:
        """Result, source and reason by which an association is refused (PS3.8 table 9-21)."""
        with self.association() as association:
            assert association.is_rejected, "it was not rejected"
            answer: Any = association.acceptor.primitive
            return answer.result, answer.result_source, answer.diagnostic

    def storescu(self, *arguments: str | Path, program: str = "storescu") -> subprocess.CompletedProcess[str]:
        """DCMTK's sender."""
        assert self.credential is not None
        tls = ("+tls", self.credential.key, self.credential.certificate, "+cf", self.ca)
        titles = ("-aet", self.calling, "-aec", self.called)
        return subprocess.run(
            [program, "-v", *tls, *titles, "127.0.0.1", str(self.port), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def identity_of(file: bytes) -> tuple[str, str, str]:
    """SOP class, transfer syntax and SOP Instance UID: those of the data set, as a sender reads them."""
    try:
        header = read_header(file)
    except DicomError:
        meta = read_file_meta(file)
        return meta.sop_class_uid, meta.transfer_syntax, meta.sop_instance_uid
    return header.sop_class_uid, header.transfer_syntax, header.sop_instance_uid


def store(association: Association, file: bytes, *, announced: str = "") -> int:
    """The status of a C-STORE of a Part 10 file's data set as it is; -1 when there is no answer.

    Arguments:
        association: with a presentation context for it.
        file: the file.
        announced: the SOP Instance UID of the command, where it is to be another than the file's.
    """
    sop_class, syntax, uid = identity_of(file)
    context = next(
        one
        for one in association.accepted_contexts
        if (one.abstract_syntax, one.transfer_syntax[0]) == (sop_class, syntax)
    )
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = UID(sop_class)
    request._AffectedSOPInstanceUID = UID(announced or uid)
    request.Priority = 2
    request.DataSet = io.BytesIO(data_set(file))
    association._reactor_checkpoint.clear()  # its own thread would take the answer
    while not association._is_paused:
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(request, context.context_id or 0)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return int(getattr(answer, "Status", None) or 0) if answer is not None else -1


def data_set(file: bytes) -> bytes:
    """What of a Part 10 file a C-STORE carries."""
    return file[read_file_meta(file).dataset_offset :]

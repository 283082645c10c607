"""The life of a worker process. It imports little, so that a process starts fast and stays small."""

import resource
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from libs.dicom.errors import DicomError

MEMORY: Final = 6 << 30
"""Bytes of address space of one process."""


def serve(pipe: Connection) -> None:
    """Says that it is ready, then takes a job, sends its result, takes the next, until the pipe closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with suppress(EOFError, OSError, KeyboardInterrupt):
        pipe.send(None)
        while True:
            function, args, kwargs = pipe.recv()
            try:
                answer: tuple[bool, Any] = (True, function(*args, **kwargs))
            except DicomError as error:
                answer = (False, error)
            except Exception as error:
                answer = (False, repr(error)[:500])
            pipe.send(answer)

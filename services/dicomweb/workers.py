"""Processes that decode and render, so that a damaged image costs a process and not the service.

Each has its own pipe: a job that crashes, hangs or eats too much memory is the only one that fails, and its process
is replaced. Processes start when they are first needed, and again after a number of jobs. They end with the service,
even when it is killed, since their pipe closes.
"""

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Final, ParamSpec, TypeVar, cast

import structlog

from libs.dicom.errors import DicomError
from libs.web.problems import Unavailable
from services.dicomweb.errors import CannotDecode
from services.dicomweb.worker_process import serve

P = ParamSpec("P")
R = TypeVar("R")

_START_SECONDS: Final = 60
_log = structlog.get_logger(__name__)


class Workers:
    """A few processes for what takes long or may crash.

    Arguments:
        processes: how many.
        seconds: how long one job may take.
        waiting: how many jobs may wait for a process.
        jobs: after how many jobs a process is replaced.
    """

    def __init__(self, processes: int, *, seconds: float = 20, waiting: int = 64, jobs: int = 500) -> None:
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="worker")
        self._workers = [_Worker(seconds, jobs) for _ in range(processes)]
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        for worker in self._workers:
            self._idle.put_nowait(worker)
        self._places = waiting
        self._waiting = 0

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a function of a module in one of the processes.

        Raises:
            CannotDecode: it raised a ``DicomError``, crashed, or took too long.
            Unavailable: too many jobs wait.
        """
        if self._waiting >= self._places:
            raise Unavailable("Too many images are being converted at the moment.", retry_after=2)
        self._waiting += 1
        try:
            worker = await self._idle.get()
        finally:
            self._waiting -= 1
        task = asyncio.create_task(self._call(worker, function, args, kwargs))
        task.add_done_callback(_seen)
        # The process is busy until the job ends, even when the caller has gone away.
        return cast("R", await asyncio.shield(task))

    async def _call(self, worker: "_Worker", function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, worker.call, function, args, kwargs)
        finally:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.end()
        await asyncio.to_thread(self._threads.shutdown)


def _seen(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


class _Worker:
    """One process, started when there is something to do."""

    def __init__(self, seconds: float, jobs: int) -> None:
        self._seconds = seconds
        self._jobs = jobs
        self._left = 0
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Has the process run the function; blocks."""
        try:
            pipe = self._start()
            self._left -= 1
            pipe.send((function, args, kwargs))
            if not pipe.poll(self._seconds):
                _log.error("an image took too long to convert; its process is replaced")
                self.end()
                raise CannotDecode("It takes too long to convert.")
            succeeded, result = pipe.recv()
        except (EOFError, OSError) as error:
            _log.error("a process that converts images has died; it is replaced", error=repr(error))
            self.end()
            raise CannotDecode("Converting it failed.") from error
        if succeeded:
            return result
        if isinstance(result, DicomError):
            raise CannotDecode(result.reason)
        _log.error("converting an image failed", error=result)
        raise CannotDecode("Converting it failed.")

    def _start(self) -> Connection:
        if self._left <= 0:
            self.end()
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs,), name="dicomweb worker", daemon=True)
            self._process.start()
            theirs.close()
            self._left = self._jobs
            # Starting takes longer than most jobs; it isn't a job's fault.
            if not self._pipe.poll(_START_SECONDS):
                raise EOFError
            self._pipe.recv()
        return self._pipe

    def end(self) -> None:
        """Kills the process, if there is one."""
        pipe, process = self._pipe, self._process
        self._pipe = self._process = None
        self._left = 0
        if process is not None:
            process.kill()
            process.join(5)
            process.close()
        if pipe is not None:
            pipe.close()

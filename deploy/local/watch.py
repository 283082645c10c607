"""Keeps one part alive: starts it, asks how it is, and starts it anew with growing pauses when it died or hangs."""

import asyncio
import contextlib
import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import psutil

from deploy.local.home import Home
from deploy.local.part import Part, kill_group, spawn

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
_GOOD_RUN: Final = 30.0
_BETWEEN_PROBES: Final = 3.0
_SOON: Final = 0.5
_DEAF_AFTER: Final = 4
_log = logging.getLogger(__name__)


@dataclass
class Watch:
    """One part and what is known of it.

    Attributes:
        part: what is kept alive.
        home: the data folder.
        on_change: told whenever something that ``report`` says has changed.
        state: ``waiting``, ``starting``, ``running``, ``not ready``, ``restarting`` or ``stopped``.
        message: why it is in this state, where there is something to say.
        restarts: how often it was started anew.
    """

    part: Part
    home: Home
    on_change: Callable[[], None]
    state: str = "waiting"
    message: str = ""
    restarts: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _since: str = ""
    _created: float = 0
    _process: subprocess.Popen[bytes] | None = None

    def report(self) -> dict[str, Any]:
        """What the state file says of this part."""
        return {
            "state": self.state,
            "message": self.message,
            "pid": self._process.pid if self._process else None,
            "created": self._created,
            "port": self.part.port,
            "dicom_port": self.part.dicom_port,
            "since": self._since,
            "restarts": self.restarts,
            "stop_signal": int(self.part.stop_signal),
        }

    def _become(self, state: str, message: str = "") -> None:
        if (state, message) != (self.state, self.message):
            if state != self.state:
                _log.info("%s: %s %s", self.part.name, state, message)
            self.state, self.message = state, message
            self.on_change()

    async def run(self) -> None:
        """Keeps the part alive until cancelled; ``stop`` ends its process."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                await self._run_once()
            except OSError as error:
                self._become("restarting", str(error))
            finally:
                self.ready.clear()
            pause = _FIRST_PAUSE if time.monotonic() - began > _GOOD_RUN else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self.restarts += 1

    async def _run_once(self) -> None:
        """One life of the process."""
        self._become("starting")
        await asyncio.to_thread(self.part.prepare)
        process = self._process = spawn(self._part_as_set(), self.home.log(self.part.name))
        with contextlib.suppress(psutil.Error):
            self._created = psutil.Process(process.pid).create_time()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self.on_change()
        reason = await self._until_live(process) or await self._until_dead(process)
        await asyncio.to_thread(kill_group, process)
        self._become("restarting", f"{reason}; see {self.home.log(self.part.name)}")

    def _part_as_set(self) -> Part:
        """The part with what the owner of the data folder has set for it."""
        try:
            further = self.home.further_settings(self.part.name)
        except (ValueError, AttributeError) as error:
            raise OSError(f"{self.home.settings_file} can't be understood: {error}") from error
        return replace(self.part, environment={**self.part.environment, **further})

    async def _until_live(self, process: subprocess.Popen[bytes]) -> str:
        """Waits for the first answer. Returns why it has to be started anew, or nothing."""
        until = time.monotonic() + self.part.start_seconds
        while time.monotonic() < until:
            if process.poll() is not None:
                return _ended(process)
            with contextlib.suppress(OSError):
                await self.part.live()
                return ""
            await asyncio.sleep(0.15)
        return f"no answer within {self.part.start_seconds:.0f} s"

    async def _until_dead(self, process: subprocess.Popen[bytes]) -> str:
        """Asks how it is from time to time. Returns why it has to be started anew."""
        deaf = 0
        while deaf < _DEAF_AFTER:
            deaf = await self._ask(deaf)
            until = time.monotonic() + (_BETWEEN_PROBES if self.state == "running" else _SOON)
            while time.monotonic() < until:
                if process.poll() is not None:
                    return _ended(process)
                await asyncio.sleep(0.2)
        return f"no answer {deaf} times in a row"

    async def _ask(self, deaf: int) -> int:
        """Asks once. Returns how many times in a row it did not even answer that it lives."""
        try:
            await self.part.live()
        except OSError as error:
            self._become("not ready", str(error))
            return deaf + 1
        try:
            await self.part.ready()
        except OSError as error:
            if self.state != "starting":
                self._become("not ready", str(error))
            return 0
        self._become("running")
        self.ready.set()
        return 0

    async def stop(self) -> None:
        """Asks the process to end and waits; kills it when it takes too long."""
        process = self._process
        if process is not None:
            self._become("stopping")
            if process.poll() is None:
                process.send_signal(self.part.stop_signal)
            until = time.monotonic() + self.part.stop_seconds
            while process.poll() is None and time.monotonic() < until:  # noqa: ASYNC110 (a process gives no event)
                await asyncio.sleep(0.05)
            await asyncio.to_thread(kill_group, process)
        self._process = None
        self._become("stopped")


def _ended(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"killed by signal {-code}" if code < 0 else f"ended with {code}"

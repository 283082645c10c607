"""The data folder: everything that the stack of one checkout keeps lies in here."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_LARGEST_LOG: Final = 8 << 20


@dataclass(frozen=True)
class Home:
    """The data folder and the names inside it.

    Attributes:
        folder: an absolute path; it need not exist yet.
    """

    folder: Path

    @property
    def secrets_file(self) -> Path:
        """Passwords and keys, readable by the owner only."""
        return self.folder / "secrets.json"

    @property
    def ports_file(self) -> Path:
        """The ports that were found free and are kept from then on."""
        return self.folder / "ports.json"

    @property
    def state_file(self) -> Path:
        """What the supervisor last saw of each part."""
        return self.folder / "state.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor as long as it lives."""
        return self.folder / "supervisor.lock"

    @property
    def edges_folder(self) -> Path:
        """One file an edge gateway that this machine runs."""
        return self.folder / "edges"

    @property
    def settings_file(self) -> Path:
        """Further settings by part: an object of environment variables for each; read at each start of the part."""
        return self.folder / "settings.json"

    def further_settings(self, part: str) -> dict[str, str]:
        """What ``settings.json`` says for a part.

        Raises:
            ValueError: the file can't be understood.
        """
        return {str(name): str(value) for name, value in read_json(self.settings_file).get(part, {}).items()}

    def data(self, part: str) -> Path:
        """The folder in which a part keeps its data."""
        return self.folder / part

    def log(self, part: str) -> Path:
        """The log of a part."""
        return self.folder / "logs" / f"{part}.log"

    def create(self) -> None:
        """Makes the folder, passable for others only where a server has to run under another user."""
        mode = 0o711 if os.geteuid() == 0 else 0o700
        for folder in (self.folder, self.folder / "logs", self.edges_folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode if folder == self.folder else 0o700)

    def supervisor_pid(self) -> int | None:
        """The process id of the supervisor while it lives: it holds the lock until it ends, however it ends."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.read(descriptor, 32)
            return int(written) if written.isdigit() else 0
        finally:
            os.close(descriptor)
        return None


def find_home() -> Home:
    """The folder that LIGHTBOX_HOME names, else ``.lightbox`` in the checkout."""
    named = os.environ.get("LIGHTBOX_HOME", "")
    return Home(Path(named).expanduser().resolve() if named else CHECKOUT / ".lightbox")


def cache_folder() -> Path:
    """Where downloads are kept for all checkouts of this user (LIGHTBOX_CACHE overrides)."""
    named = os.environ.get("LIGHTBOX_CACHE", "")
    if named:
        return Path(named).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightbox"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")  # noqa: TRY004 (it is the content that is wrong)
    return value


def write_json(path: Path, value: dict[str, Any], *, durable: bool = False) -> None:
    """Replaces a JSON file in one step; only the owner can read it.

    Arguments:
        path: the file.
        value: what it shall hold.
        durable: also wait until it is on disk.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file, indent=2)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    new.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file, made if need be; waits for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_log(path: Path) -> int:
    """A descriptor to append to a log; a log that has grown large moves to ``NAME.1`` first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LARGEST_LOG:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def bound_log(path: Path) -> None:
    """Halves a log that a long-lived part has let grow: the newest part stays, in ``NAME.1``."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size <= 4 * _LARGEST_LOG:
        return
    with path.open("r+b") as file:
        file.seek(size - _LARGEST_LOG)
        path.with_name(f"{path.name}.1").write_bytes(file.read())
        file.truncate(0)

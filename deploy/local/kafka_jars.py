"""Kafka's jars, exactly those of our lock file."""

import logging
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.download import DownloadFailed, Progress, file_hash, silent
from deploy.local.home import cache_folder, locked

LOCK_FILE: Final = Path(__file__).with_name("kafka-jars.txt")
_AT_ONCE: Final = 8
_TRIES: Final = 3


@dataclass(frozen=True)
class Jar:
    """One line of the lock file: Maven coordinates and the SHA-256 of the file."""

    group: str
    artifact: str
    version: str
    sha256: str


def locked_jars() -> list[Jar]:
    """What the lock file lists."""
    jars: list[Jar] = []
    for line in LOCK_FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinates, sha256 = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def _fetch(jar: Jar, cache: Path) -> Path:
    """The verified file; a damaged one is fetched anew.

    Raises:
        DownloadFailed: it can't be had, or its hash is wrong again and again.
    """
    from jgo.maven import MavenContext  # slow to import, and needed here only

    problem = "no attempt was made"
    for _ in range(_TRIES):
        try:
            context = MavenContext(repo_cache=cache, local_repos=[], timeout=60)
            path = Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
        except Exception as error:  # jgo raises what its HTTP client raises
            problem = str(error)
            continue
        if file_hash(path, "sha256") == jar.sha256:
            return path
        problem = "its SHA-256 is not the recorded one"
        path.unlink(missing_ok=True)
    raise DownloadFailed(
        f"{jar.group}:{jar.artifact}:{jar.version} could not be fetched: {problem}. "
        "Is Maven Central reachable from here?"
    )


def fetch_jars(progress: Progress = silent) -> list[Path]:
    """The class path of Kafka: all jars, fetched if need be, every one checked.

    Raises:
        DownloadFailed: one of them can't be had.
    """
    logging.getLogger("jgo").setLevel(logging.ERROR)
    jars = locked_jars()
    cache = cache_folder() / "maven"
    with locked(cache_folder() / "maven.lock"), ThreadPoolExecutor(_AT_ONCE) as pool:
        under_way = {pool.submit(_fetch, jar, cache): jar for jar in jars}
        for done, future in enumerate(as_completed(under_way), 1):
            future.result()
            progress("Apache Kafka", done, len(jars))
        return sorted(future.result() for future in under_way)

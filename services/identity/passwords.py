"""Password hashing with Argon2id (RFC 9106), off the event loop and bounded in memory.

A file of its own because it is neither a rule nor a resource: it owns threads and a queue.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from libs.web.problems import Unavailable
from services.identity.domain import MAX_PASSWORD_BYTES, new_secret, normal_password

_MAX_WAITING: Final = 64


class Passwords:
    """Hashes and verifies passwords.

    Arguments:
        threads: how many are worked on at once.
        rounds: the time cost of a hash.
        memory_kib: the memory of a hash; with the defaults of the settings it takes about a sixth of a second.
    """

    def __init__(self, *, threads: int, rounds: int, memory_kib: int) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kib, parallelism=1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._waiting = 0
        self._decoy = self._hasher.hash(new_secret())

    async def hash(self, password: str) -> str:
        """The hash of a normalised password, to be stored.

        Raises:
            Unavailable: too many wait already.
        """
        return await self._run(password, None)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one that was hashed.

        With no stored hash a decoy is verified, so that an unknown user takes as long as a wrong password.

        Raises:
            Unavailable: too many wait already.
        """
        normal = normal_password(password)
        if len(normal.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
            normal, stored = "", None
        return await self._run(normal, stored or self._decoy) == "right" and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, password: str, stored: str | None) -> str:
        if self._waiting >= _MAX_WAITING:
            raise Unavailable("Too many log-ins at once.", retry_after=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, password, stored)
        finally:
            self._waiting -= 1

    def _work(self, password: str, stored: str | None) -> str:
        content = password.encode("utf-8", "surrogatepass")
        if stored is None:
            return self._hasher.hash(content)
        try:
            self._hasher.verify(stored, content)
        except (VerificationError, InvalidHashError):
            return "wrong"
        return "right"

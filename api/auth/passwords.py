"""Password hashes: argon2id with OWASP's least memory setting, computed away from the event loop.

`hash_password` is synchronous and public so that loaders can insert people by SQL.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_CHARACTERS = 8
MAX_CHARACTERS = 1_000

# OWASP's password storage advice (19 MiB, 2 passes, 1 lane): about 20 ms of one core, and 50 sign-ins at
# once stay under 1 GiB.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def hash_password(password: str) -> str:
    """The argon2id hash of a password, in its standard text form."""
    return _HASHER.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether the password is the one that was hashed."""
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


class Passwords:
    """The same in a few threads, so that the event loop goes on; argon2 releases the interpreter lock."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, "argon2")
        # Verified against when there is no such person, so that the time taken does not tell.
        self._decoy = hash_password("a password that nobody has")

    async def hash(self, password: str) -> str:
        """`hash_password`, awaited."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """`verify_password`, awaited; takes as long when there is no hash, and is then False."""
        matches = await asyncio.get_running_loop().run_in_executor(
            self._threads, verify_password, password_hash or self._decoy, password
        )
        return matches and password_hash is not None

    def close(self) -> None:
        """End the threads; hashes that were begun are finished."""
        self._threads.shutdown(cancel_futures=True)

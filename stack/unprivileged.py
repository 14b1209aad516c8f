"""Running Postgres as somebody who is not root, which it insists on.

Whoever is not root runs it plainly. Root runs it in a user namespace, where it takes root for user 1000 and files stay
where they are. Where user namespaces are off, it runs as `nobody`, in a folder that `nobody` can reach.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

USER = "nobody"
NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@dataclass(frozen=True)
class Unprivileged:
    """How to run Postgres: words before its command, a user to change to, and where its programs and data are."""

    prefix: tuple[str, ...]
    user: str | None
    programs: Path  # the folder that holds bin, lib and share
    data: Path

    def own(self, path: Path) -> None:
        """Give `path` to the user that Postgres runs as."""
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)


@lru_cache(maxsize=1)
def namespaces_work() -> bool:
    """Whether this machine lets us make a user namespace with a mapped user."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def unprivileged(programs: Path, data: Path, *, namespaces: bool | None = None) -> Unprivileged:
    """How to run Postgres here; `namespaces` says whether they work (None: find out).

    A data folder that exists decides by its owner, so that a cluster is always run as whoever made it.
    """
    if os.geteuid() != 0:
        return Unprivileged((), None, programs, data)
    if data.exists():
        namespaces = data.stat().st_uid == 0
    if namespaces_work() if namespaces is None else namespaces:
        return Unprivileged(NAMESPACE, None, programs, data)
    elsewhere = Path("/var/tmp") / f"fanline-{hashlib.sha256(bytes(data)).hexdigest()[:12]}"
    return Unprivileged(
        (),
        USER,
        programs if reachable(programs) else elsewhere.joinpath(*programs.parts[-2:]),
        data.resolve() if data.exists() else data if reachable(data) else elsewhere / "data",
    )


def reachable(path: Path) -> bool:
    """Whether everybody may enter every folder on the way to `path` (those that do not exist yet are made so)."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents if folder.exists())

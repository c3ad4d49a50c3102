"""Directories that only the user who made them can look into."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sage.common.errors import ConfigError


def runtime_directory() -> Path:
    """Return where the processes of this user on this machine meet: `…/sage-<uid>`.

    It lies in `XDG_RUNTIME_DIR`, or else in `/dev/shm`, or else in the directory for temporary
    files: the first of them that can be written. Nothing is made.
    """
    candidates = (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm", tempfile.gettempdir())  # noqa: S108 - made private
    base = next(
        (c for c in candidates if c and Path(c).is_dir() and os.access(c, os.W_OK | os.X_OK)),
        "/tmp",  # noqa: S108
    )
    return Path(base, f"sage-{os.geteuid()}")


def make_private(directory: Path) -> None:
    """Make a directory of mode 0700, unless it is there; see `check_private`.

    Raises:
        ConfigError: what is there is not private.
        OSError: it cannot be made.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    check_private(directory)


def check_private(directory: Path) -> os.stat_result:
    """Demand that a directory belongs to this user and nobody else can enter it.

    In a place where all may write, somebody else may have made it first.

    Returns:
        What the system knows about it.

    Raises:
        ConfigError: it is a link or a file, belongs to somebody else, or is open to others.
        FileNotFoundError: it is not there.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{directory} is not a directory; it will not be used")
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"{directory} belongs to user {found.st_uid}, not to {os.geteuid()}; it will not be used"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{directory} is open to others (mode {mode:03o}); make it private: 700")
    return found

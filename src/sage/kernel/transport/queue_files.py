"""The files behind SageQueues: where they are, who may open them, when they may go.

One file per queue, 0600, in a 0700 directory of the user's own. Whoever has a queue open holds a
shared `flock` on its file, which the kernel drops when the process dies; so "is anybody there?" is
answered by trying for the exclusive lock, without process ids. A file gets its name only when it
is complete, and loses it only under the exclusive lock.

What is inside the files is the business of `_ring.h`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sage.common.errors import (
    QueueExistsError,
    QueueInUseError,
    QueueNameError,
    QueueNotFoundError,
    QueueUnsafeError,
    QueueUnsupportedError,
)

if sys.platform != "win32":
    import fcntl

DIRECTORY_VARIABLE = "SAGE_QUEUE_DIR"
SUFFIX = ".queue"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it


def queue_directory() -> Path:
    """Return the directory of this user's queues, making it if need be.

    It is `sage-<uid>` under `$SAGE_QUEUE_DIR`, else `/dev/shm`, else the temporary directory.

    Returns:
        The directory, known to be the user's own and closed to others.

    Raises:
        QueueUnsafeError: It is not: someone else made it, or opened it to others.
    """
    directory = _parent_directory() / f"sage-{os.getuid()}"
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    _check_owned(directory, os.lstat(directory), stat.S_ISDIR)
    return directory


def _parent_directory() -> Path:
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen)
    if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _check_owned(path: Path, status: os.stat_result, is_kind: object) -> None:
    kind_ok = callable(is_kind) and is_kind(status.st_mode)
    if not kind_ok or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise QueueUnsafeError(
            f"{path} must be owned by user {os.getuid()} and closed to others; it is owned by "
            f"{status.st_uid}, mode {stat.filemode(status.st_mode)}: remove it or choose another "
            f"place with ${DIRECTORY_VARIABLE}"
        )


def check_name(name: str) -> str:
    """Return `name` if it can name a queue.

    Args:
        name: 1 to 128 of letters, digits, `_`, `-` and `.`, not beginning with `-` or `.`.

    Raises:
        QueueNameError: It cannot, being a path, say.

    Examples:
        >>> check_name("orders.0-1")
        'orders.0-1'
    """
    if not _NAME.fullmatch(str(name)):
        raise QueueNameError(
            f"{name!r} does not name a queue: use up to 128 letters, digits, '_', '-' and '.', "
            "beginning with a letter, digit or '_'"
        )
    return name


def queue_path(name: str) -> Path:
    """Return where the queue of that name is or would be."""
    return queue_directory() / (check_name(name) + SUFFIX)


def queue_names() -> list[str]:
    """Return the names of this user's queues, sorted."""
    entries = os.listdir(queue_directory())
    return sorted(entry.removesuffix(SUFFIX) for entry in entries if entry.endswith(SUFFIX))


def open_nameless() -> int:
    """Return a descriptor of an empty file without a name, which vanishes unless published.

    Raises:
        QueueUnsupportedError: The file system has no such files.
    """
    directory = queue_directory()
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        raise QueueUnsupportedError(
            f"the file system of {directory} cannot make nameless files (O_TMPFILE); choose a "
            f"tmpfs, ext4, xfs or btrfs directory with ${DIRECTORY_VARIABLE}"
        ) from error
    os.fchmod(fd, 0o600)
    return fd


def publish(fd: int, name: str) -> None:
    """Give a nameless, complete file its name, holding the lock of the living before it is seen.

    Raises:
        QueueExistsError: The name is taken.
    """
    path = queue_path(name)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        # A source directory makes this linkat(AT_SYMLINK_FOLLOW): the file, not the link to it.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        hint = "it is in use" if is_in_use(name) else "nobody uses it: remove_queue() removes it"
        raise QueueExistsError(f"there is a queue {name!r} already; {hint}") from None


def open_shared(name: str) -> int:
    """Open a queue's file and join those who keep it alive.

    Returns:
        A descriptor that holds the shared lock.

    Raises:
        QueueNotFoundError: There is no such queue.
        QueueUnsafeError: The file is another user's.
    """
    path = queue_path(name)
    while True:
        fd = _open(path, name)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it was removed between open and lock: look what has the name now


def _open(path: Path, name: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise QueueNotFoundError(f"there is no queue {name!r} in {path.parent}") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise QueueUnsafeError(f"{path} is a symbolic link") from error
    try:
        _check_owned(path, os.fstat(fd), stat.S_ISREG)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def _sole_owner(name: str) -> Iterator[Path]:
    """Hold the exclusive lock on a queue's file, so that nobody has it open or can open it."""
    path = queue_path(name)
    fd = _open(path, name)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QueueInUseError(
                f"queue {name!r} is in use by process {_listed(peers(name))}"
            ) from None
        if not os.fstat(fd).st_nlink:
            raise QueueNotFoundError(f"there is no queue {name!r} in {path.parent}")
        yield path
    finally:
        os.close(fd)


def _listed(pids: tuple[int, ...]) -> str:
    return ", ".join(map(str, pids)) or "(unknown)"


def is_in_use(name: str) -> bool:
    """Return whether a living process has the queue open."""
    try:
        with _sole_owner(name):
            return False
    except QueueInUseError:
        return True
    except QueueNotFoundError:
        return False


def unlink(name: str) -> None:
    """Remove a queue's file.

    Raises:
        QueueInUseError: A living process has it open.
        QueueNotFoundError: There is none.
    """
    with _sole_owner(name) as path:
        os.unlink(path)


def peers(name: str) -> tuple[int, ...]:
    """Return the process ids that opened the queue, as far as the kernel tells.

    A forked child shares its parent's lock and is not listed.
    """
    status = os.stat(queue_path(name))
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found: set[int] = set()
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[3] == "READ" and fields[5] == place:
                found.add(int(fields[4]))
    return tuple(sorted(found))

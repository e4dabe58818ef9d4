"""The directory that the processes of one service share: metrics, rate limits, sockets.

In memory where that can be; removed by whoever made it, or, when that was killed, by the next to make one.

Layer L2; imports nothing of fairlead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

# prometheus_client's own, so that a model's metrics find their way too.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare_directory() -> Path:
    """Make the private directory that the processes of one service share, and tell it to the environment.

    For the process that starts the others, before it does. It is below the environment's directory if that
    has one, else in memory: where a disk holds mapped files, writing them back stops who adds to them.

    Returns
    -------
    The directory, for `remove_directory` at the end.
    """
    directory = make_directory()
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    return directory


def remove_directory(directory: Path) -> None:
    """Remove what `prepare_directory` made."""
    shutil.rmtree(directory, ignore_errors=True)
    if os.environ.get(DIRECTORY_VARIABLE) == str(directory):
        del os.environ[DIRECTORY_VARIABLE]
    owner = _owned.pop(str(directory), None)
    if owner is not None:
        os.close(owner)


# Kept open, and locked, as long as a directory's maker lives.
_owned: dict[str, int] = {}
_PREFIX = "fairlead-metrics-"
_NEW_S = 60.0


def make_directory() -> Path:
    """Make a directory for `remove_directory`, without telling it to anybody."""
    base = _base()
    _remove_orphans(base)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    owner = os.open(directory / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(owner, fcntl.LOCK_EX)
    _owned[str(directory)] = owner
    return directory


def _base() -> Path:
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        base = Path(given)
        # A service inside a service: beside its directory, not in it, where it would go with it.
        if base.name.startswith(_PREFIX):
            return base.parent
        base.mkdir(parents=True, exist_ok=True)
        return base
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _remove_orphans(base: Path) -> None:
    """Remove directories whose makers were killed."""
    for orphan in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = orphan.lstat()
            if about.st_uid != os.getuid() or time.time() - about.st_mtime < _NEW_S or orphan.is_symlink():
                continue
            owner = os.open(orphan / "owner", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(orphan, ignore_errors=True)
            finally:
                os.close(owner)

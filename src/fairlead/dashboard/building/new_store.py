"""Room for a store that is to come: nobody else builds there, nothing else lies there, and all of it appears at once.

Layer L3; stdlib and the bundle's own writing.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairlead.bundle.locks import Lock, try_lock
from fairlead.bundle.read import files_of
from fairlead.bundle.write import PARTIAL, staged_directory
from fairlead.dashboard.store import BUNDLE, MANIFEST, Store
from fairlead.errors import CacheError, DashboardError


@contextmanager
def new_store(target: Path) -> Iterator[Path]:
    """Give an empty directory that takes the place of `target` when it is left without an error.

    Raises
    ------
    DashboardError
        When something else is there, somebody else builds it, or the disk does not take it.
    """
    target = target.absolute()
    check_target(target)
    lock = _lock(target)
    try:
        for left in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}"):
            shutil.rmtree(left, ignore_errors=True)  # of a build that was killed
        with _told(target), staged_directory(target) as directory:
            yield directory
    finally:
        _lock_file(target).unlink(missing_ok=True)
        lock.release()


def check_target(target: Path) -> None:
    """Refuse a target that holds anything but a store, before any work is done.

    Raises
    ------
    DashboardError
        When something else is there, or it cannot be written to.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise DashboardError(f"{target}: expected a directory for the dashboard, there is something else: name another")
    if target.is_dir() and any(target.iterdir()) and not _is_store(target):
        raise DashboardError(
            f"{target}: not empty and no intact dashboard, so it is left alone: name another directory or remove it"
        )
    if not target.parent.is_dir():
        raise DashboardError(f"{target}: its parent {target.parent} does not exist: make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise DashboardError(f"{target}: its parent {target.parent} cannot be written to: name another with -o")


def _is_store(directory: Path) -> bool:
    """Whether a store is there and nothing else, since all of it goes when it is replaced."""
    try:
        manifest = Store.open(directory).manifest
    except DashboardError:
        return False
    own = {name for name in files_of(directory) if not name.startswith(f"{BUNDLE}/")}
    return own <= {MANIFEST, *manifest.files}


def _lock(target: Path) -> Lock:
    try:
        lock = try_lock(_lock_file(target))
    except CacheError as error:
        reason = getattr(error.__cause__, "strerror", None) or str(error)
        raise DashboardError(
            f"{target}: its parent {target.parent} cannot be written to ({reason}): name another with -o"
        ) from error
    if lock is None:
        raise DashboardError(f"{target}: another process builds it now: wait for it, or name another with -o")
    return lock


def _lock_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Tell what a disk refuses."""
    try:
        yield
    except OSError as error:
        raise DashboardError(f"{target}: cannot be written ({error}); what was there is as it was") from error

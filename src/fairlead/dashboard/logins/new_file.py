"""A file with something secret in it: made whole or not at all, for its owner only, by one of those who try at once.

Layer L3; imports the standard library only.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from fairlead.errors import DashboardError


def make(path: Path, write: Callable[[Path], None]) -> bool:
    """Make a file that only its owner may read and write.

    Parameters
    ----------
    path : where it is to be; a file that is there already is left as it is.
    write : writes its content to the path that it is given, where an empty file is.

    Returns
    -------
    Whether it was made; False when there was one, or someone else was quicker.

    Raises
    ------
    DashboardError
        When it cannot be written there.
    """
    if path.exists():
        return False
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        aside = Path(name)
        try:
            write(aside)
            os.fsync(handle)
            # Unlike a renaming, this never takes the place of another's.
            path.hardlink_to(aside)
        except FileExistsError:
            return False
        finally:
            os.close(handle)
            aside.unlink()
    except OSError as error:
        raise DashboardError(
            f"{path}: expected a folder in which it can be made, got: {error.strerror}: name another place for it"
        ) from error
    return True


def check(path: Path, found: os.stat_result, what: str) -> None:
    """See to it that a path is a file which is closed to other users of the machine.

    Parameters
    ----------
    found : what `os.stat` gives for it.
    what : what the file holds, for the message.

    Raises
    ------
    DashboardError
        When it is something else, or open to all.
    """
    if not stat.S_ISREG(found.st_mode):
        raise DashboardError(f"{path}: expected {what}, got no plain file: name another")
    if found.st_mode & stat.S_IRWXO:
        raise DashboardError(
            f"{path}: expected {what} that is closed to other users of this machine, got one that they may open "
            f"(mode {stat.S_IMODE(found.st_mode):o}): run `chmod o= {path}`"
        )

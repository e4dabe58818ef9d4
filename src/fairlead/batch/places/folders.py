"""Directories of this machine: what is below one, and new ones.

Layer L3; imports errors only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairlead.batch.places import names
from fairlead.batch.places.disk import sync


def below(
    folder: str, segments: Sequence[str], above: tuple[str, ...] = (), inodes: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, ...]]:
    """List what is meant below a folder, through links too, but for those that lead back to a folder above them."""
    try:
        status = os.stat(folder)  # noqa: PTH116  # a text here, as scandir gives
    except (FileNotFoundError, NotADirectoryError):
        return
    inode = (status.st_dev, status.st_ino)
    if inode in inodes or not segments or not stat.S_ISDIR(status.st_mode):
        return
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        name = (*above, entry.name)
        if entry.is_dir():
            if not names.is_hidden(entry.name) and names.leads(segments, name):
                yield from below(entry.path, segments, name, inodes | {inode})
        elif entry.is_file() and names.matches(segments, name):
            yield name


def make_folder(folder: Path) -> None:
    """Make a directory and those above it, so that they are there after a loss of power."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(str(folder.parent))

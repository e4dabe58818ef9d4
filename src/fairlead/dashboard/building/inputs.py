"""What a store was made of, and whether that has changed: files by their looks, an address by what it stands for.

Layer L3; what asks a registry is imported when there is one to ask.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from fairlead import config
from fairlead.dashboard.store import StoreManifest
from fairlead.errors import FairleadError

logger = logging.getLogger("fairlead.dashboard")

# Of each file its size and times; of what is not there, nothing.
Look = dict[str, tuple[int, int, int]]


def look_at(inputs: Sequence[Path]) -> Look:
    """Look at files, and at all files in directories, without reading them."""
    found: Look = {}
    for path in inputs:
        for file in _files_of(path):
            with suppress(OSError):  # gone between
                about = file.stat()
                found[str(file)] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    else:
        yield path


class Inputs:
    """What a store was made of.

    Parameters
    ----------
    manifest : of the store.
    known : how files looked when it was built, as far as somebody saw that.

    Attributes
    ----------
    files : files and directories.
    address : of the model, when it is in a registry or a store; None when it is a file.
    seen : how the files were last.
    """

    def __init__(self, manifest: StoreManifest, known: Look | None = None) -> None:
        source = manifest.recipe.source
        self.files = tuple(map(Path, manifest.inputs))
        self.address = source if config.is_address(source) else None
        self.seen = look_at(self.files)
        built_ns = datetime.fromisoformat(manifest.built_at).timestamp() * 1e9
        known = known or {}
        self._are_newer = any(
            known[name] != look if name in known else look[1] > built_ns for name, look in self.seen.items()
        )
        self._key = manifest.source_key
        self._told: str | None = None
        self._asked: str | None = None

    def have_changed(self) -> bool:
        """Whether they are others than when this was asked last; at first, than when the store was built."""
        are_newer, self._are_newer = self._are_newer, False
        if (seen := look_at(self.files)) != self.seen:
            self.seen, are_newer = seen, True
        if self._asked is not None and self._asked != self._key:
            self._key, are_newer = self._asked, True
        return are_newer

    def ask(self) -> None:
        """Ask what the address stands for now, which may take a while; another thread may do it."""
        from fairlead.bundle.obtain import look_up

        if self.address is None:
            return
        try:
            self._asked = look_up(self.address, config.read(None, os.environ, {}).cache, os.environ)
        except FairleadError as error:
            if str(error) != self._told:
                logger.warning("%s: cannot be asked for a newer version: %s", self.address, error)
            self._told = str(error)
        else:
            self._told = None

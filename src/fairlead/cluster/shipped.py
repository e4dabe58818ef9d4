"""A bundle on its way to machines that do not see the directory it lies in.

Layer L4; imports bundle.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fairlead.bundle.locks import wait_lock
from fairlead.bundle.manifest import DESCRIPTOR
from fairlead.bundle.read import Bundle, files_of, open_bundle
from fairlead.errors import BundleError

_PATIENCE_S = 300.0  # for another process that unpacks the same


@dataclass(frozen=True)
class ShippedBundle:
    """A bundle, all of it.

    Parameters
    ----------
    home : the directory it came from, which other machines may share.
    digest : of the bundle.
    files : what is in it, by path with forward slashes.
    """

    home: str
    digest: str
    files: dict[str, bytes]

    def here(self) -> Bundle:
        """Open it on this machine: where it came from, or in a directory of its own that all processes share.

        Raises
        ------
        BundleError, CacheError
        """
        shelf = Path(tempfile.gettempdir()) / f"fairlead-bundles-{os.getuid()}"
        place = shelf / self.digest
        if (found := self._opened(Path(self.home)) or self._opened(place)) is not None:
            return found
        shelf.mkdir(mode=0o700, exist_ok=True)
        lock = wait_lock(shelf / f"{self.digest}.lock", _PATIENCE_S, lambda: None)
        if lock is None:
            raise BundleError(f"{place}: another process has been unpacking for {_PATIENCE_S:.0f} s: see what it does")
        with lock:
            if (found := self._opened(place)) is None:
                # What cleans such directories may have taken a part of it away.
                shutil.rmtree(place, ignore_errors=True)
                self._unpack(shelf, place)
                found = open_bundle(place)
        return found

    def _opened(self, path: Path) -> Bundle | None:
        with suppress(BundleError):
            found = open_bundle(path)
            if found.digest == self.digest:
                return found
        return None

    def _unpack(self, shelf: Path, place: Path) -> None:
        fresh = Path(tempfile.mkdtemp(dir=shelf))
        try:
            for name, data in self.files.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            fresh.replace(place)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise BundleError(f"{place}: cannot be unpacked ({error.strerror}): see TMPDIR of the cluster") from error


def pack(bundle: Bundle) -> ShippedBundle:
    """Take all files of a verified bundle along."""
    names = [DESCRIPTOR, *sorted(files_of(bundle.path))]
    return ShippedBundle(
        str(bundle.path.absolute()), bundle.digest, {name: (bundle.path / name).read_bytes() for name in names}
    )

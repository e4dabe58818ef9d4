"""Which files may be read and written: those below the roots that the configuration allows.

A path is looked at twice: when a job is made, and before it runs, with whatever its wildcards and its directories lead
to by then. What somebody links there while it runs is followed. Imports the standard library and config only.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairlead.config import is_address

_S3 = "s3://"
_WILD = re.compile(r"[*?\[{]")
# A part of a date, in digits: other formats put slashes and dots into the path, as `{year:c}` does in the year 47.
_FIELD = re.compile(r"\{(?:year|month|day|hour)(?::\d{0,2}d?)?\}", re.ASCII)


class NotAllowed(Exception):
    """A path is not below a root.

    Parameters
    ----------
    got : what it is, without its text.
    """

    def __init__(self, got: str = "a path elsewhere") -> None:
        super().__init__(got)
        self.got = got


class Roots:
    """The roots of a service.

    Parameters
    ----------
    roots : absolute paths of directories, and ``s3://BUCKET/PREFIX`` addresses.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = tuple(root.rstrip("/") for root in roots)

    def place(self, path: str) -> str:
        """Give the absolute path, or the address, of what a request names; links in its fixed part are followed.

        Parameters
        ----------
        path : may have wildcards and date fields. A relative one begins at the root, where there is only one.

        Raises
        ------
        NotAllowed
            When it is not below a root.
        """
        if set("{}\0") & set(_FIELD.sub("", path)):
            raise NotAllowed("a path with braces that are no part of a date")
        if not (path.startswith("/") or is_address(path)):
            if len(self._roots) != 1:
                raise NotAllowed("a relative path, which could begin at several roots")
            path = f"{self._roots[0]}/{path}"
        if is_address(path):
            return self._placed_in_s3(path)
        return self._placed_here(path)

    def check(self, path: str) -> None:
        """Refuse what has come to lead elsewhere since `place` gave it, be it through a wildcard or in a directory.

        Raises
        ------
        NotAllowed
            When something of it is not below a root.
        """
        if self.place(path) != path:
            raise NotAllowed("a link that was put there since")
        if not is_address(path):
            for found in _there(path):
                if not self._is_below(os.path.realpath(found)):
                    raise NotAllowed("a link to elsewhere in it")

    def _placed_in_s3(self, address: str) -> str:
        bucket, _, key = address.removeprefix(_S3).partition("/")
        # To S3 dots are part of a name; whatever else looks at the address may take them for directories.
        if not address.startswith(_S3) or {"..", "."} & set(key.split("/")):
            raise NotAllowed("an address elsewhere")
        wild = _WILD.search(key)
        fixed = key if wild is None else key[: key.rfind("/", 0, wild.start()) + 1]
        for root in self._roots:
            root_bucket, _, prefix = root.removeprefix(_S3).partition("/")
            if root.startswith(_S3) and bucket == root_bucket and (not prefix or fixed.startswith(f"{prefix}/")):
                return address
        raise NotAllowed("an address elsewhere")

    def _placed_here(self, path: str) -> str:
        parts = path.split("/")
        n_fixed = next((place for place, part in enumerate(parts) if _WILD.search(part)), len(parts))
        rest = parts[n_fixed:]
        try:
            real = os.path.realpath("/".join(parts[:n_fixed]) or "/")
        except ValueError:  # what no file can be called
            raise NotAllowed from None
        if ".." in rest or not self._is_below(real):
            raise NotAllowed
        # A slash at the end says that a directory is meant.
        return "/".join([real, *filter(None, rest)]) + ("/" if parts[-1] == "" else "")

    def _is_below(self, real: str) -> bool:
        for root in self._roots:
            if is_address(root):
                continue
            real_root = os.path.realpath(root or "/").rstrip("/")
            # What is not there yet would become a file beside what is in the root.
            if real.startswith(f"{real_root}/") or (real == real_root and Path(real).is_dir()):
                return True
        return False


def _there(path: str) -> Iterator[str]:
    """Give what a path names, whatever the date, and the links in directories that it names."""
    for found in glob.iglob(_FIELD.sub("*", path), recursive=True):  # noqa: PTH207  # takes absolute patterns
        yield found
        for folder, folders, files in os.walk(found):
            entries = (Path(folder, name) for name in (*folders, *files))
            yield from (str(entry) for entry in entries if entry.is_symlink())

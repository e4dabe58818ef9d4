"""Which files a pattern means: globs as a shell has them, the same on a disk and in S3.

Names that begin with ``_`` or ``.`` are never meant: they are side files. Layer L3; imports errors only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from fairlead.errors import InputError

_MAGIC = re.compile(r"[*?\[]")
ALL = ("**", "*")
_LEFT_OUT = "those that begin with _ or . are left out"


class NotThere(InputError):
    """There is no such file, or not any more."""


def is_glob(text: str) -> bool:
    """Whether a path has a part that stands for several."""
    return _MAGIC.search(text) is not None


def split(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Part a glob into the folder that it fixes and the segments below it.

    >>> split("data/2026/*/rides-*.csv")
    ('data/2026', ('*', 'rides-*.csv'))
    >>> split("/**")
    ('/', ('**', '*'))
    """
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if is_glob(part))
    folder = "/".join(parts[:first])
    segments = [part for part in parts[first:] if part]
    if segments[-1] == "**" or not parts[-1]:
        segments += ["*"] if segments[-1] == "**" else ALL
    return folder or ("/" if pattern.startswith("/") else ""), tuple(segments)


def literal(segment: str) -> str:
    """Give what every name begins with that a segment means.

    >>> literal("rides-*.csv")
    'rides-'
    """
    return _MAGIC.split(segment, maxsplit=1)[0]


def is_hidden(name: str) -> bool:
    """Whether a name, of a file or a folder, is one of side files."""
    return name.startswith(("_", "."))


def matches(segments: Sequence[str], name: Sequence[str]) -> bool:
    """Whether a file, by the parts of its name below the folder, is meant.

    >>> matches(("**", "*.csv"), ("2026", "10", "a.csv")), matches(("*.csv",), ("_a.csv",))
    (True, False)
    """
    return not any(map(is_hidden, name)) and _matches(segments, name)


def _matches(segments: Sequence[str], name: Sequence[str]) -> bool:
    if not segments:
        return not name
    if segments[0] == "**":
        return any(_matches(segments[1:], name[start:]) for start in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], segments[0]) and _matches(segments[1:], name[1:])


def leads(segments: Sequence[str], folder: Sequence[str]) -> bool:
    """Whether files that are meant may be below a folder, given by the parts of its name.

    >>> leads(("*", "a.csv"), ("2026",)), leads(("*.csv",), ("2026",))
    (True, False)
    """
    for segment, name in zip(segments, folder, strict=False):
        if segment == "**":
            return True
        if not fnmatchcase(name, segment):
            return False
    return len(folder) < len(segments)


def nothing(pattern: str) -> NotThere:
    """Make the error for a pattern that means no file."""
    if is_glob(pattern):
        return NotThere(f"{pattern}: expected a glob that finds files, found none: see its names; {_LEFT_OUT}")
    return NotThere(
        f"{pattern}: expected a file, or a directory that holds some, found none: see its name; {_LEFT_OUT}"
    )

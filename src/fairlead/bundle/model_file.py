"""Reading a model's file as bytes, once, so that what was checked is what is loaded. Layer L1; stdlib only."""

from __future__ import annotations

from pathlib import Path

from fairlead.errors import SourceError


def read_file(path: Path) -> bytes:
    """The bytes of a model's file.

    Raises
    ------
    SourceError
        When it cannot be read, is empty, or is a git-lfs pointer in place of the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise SourceError(f"{path}: the file is empty")
    if data.startswith(b"version https://git-lfs"):
        raise SourceError(f"{path}: a git-lfs pointer stands in place of the file: run `git lfs pull`")
    return data

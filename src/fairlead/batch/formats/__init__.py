"""The formats of files that are scored and written, known by their suffixes.

Layer L3; a format's own module is imported when it is used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fairlead.batch.formats.form import Compression, FormatName
from fairlead.errors import InputError

_FORMATS: dict[str, FormatName] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_MODULES: dict[FormatName, str] = {"parquet": "parquet", "csv": "csv_text", "jsonl": "jsonl"}
_KNOWN = f"{', '.join(_FORMATS)}, those of text also with {' or '.join(_COMPRESSIONS)}"


@dataclass(frozen=True)
class Form:
    """How a file is written.

    Parameters
    ----------
    name : its format.
    compression : of the file as a whole; None for Parquet, which is compressed inside.
    """

    name: FormatName
    compression: Compression | None = None

    @property
    def suffix(self) -> str:
        """The suffix that names it, such as ``.csv.gz``."""
        of_compression = next((end for end, name in _COMPRESSIONS.items() if name == self.compression), "")
        return next(end for end, name in _FORMATS.items() if name == self.name) + of_compression


def named(path: str) -> Form:
    """Tell the form of a file by its name.

    >>> named("s3://rides/2026/10.CSV.gz")
    Form(name='csv', compression='gzip')

    Raises
    ------
    InputError
        When its suffix names none; the message lists those that are known.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    name = _FORMATS.get(suffixes[-1]) if suffixes else None
    if name is None:
        raise InputError(f"{path}: expected a name that ends in one of {_KNOWN}: see its suffix")
    if name == "parquet" and compression is not None:
        raise InputError(f"{path}: Parquet is compressed inside, not as a file: name it .parquet")
    return Form(name, compression)


def module(name: FormatName) -> Any:
    """Give the module that reads and writes a format: its `reader`, `encoder` and `writer`."""
    return importlib.import_module(f"{__name__}.{_MODULES[name]}")

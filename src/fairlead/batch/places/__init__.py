"""The places that files are read from and written to: this machine's disks, and S3.

Layer L3; imports boto3 when S3 is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fairlead.batch.places.local import LocalPlace
from fairlead.batch.places.place import Place
from fairlead.batch.places.s3 import S3Place
from fairlead.errors import InputError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def scheme(path: str) -> str:
    """Give the scheme of an address, empty for a path.

    >>> scheme("s3://rides/2026"), scheme("data/2026")
    ('s3', '')
    """
    found = _SCHEME.match(path)
    return found[1].lower() if found else ""


def place_of(path: str, environ: Mapping[str, str]) -> Place:
    """Give the place that a path is in.

    Parameters
    ----------
    environ : where credentials, region and endpoint of S3 stand, and TMPDIR.

    Raises
    ------
    InputError
        For an address that is no place, such as a database's.
    """
    kind = scheme(path)
    if kind == "s3":
        return S3Place(environ)
    if kind:
        raise InputError(f"{kind}://…: expected a path of this machine or s3://BUCKET/KEY for a file: see its address")
    if not path:
        raise InputError("expected the path of a file, got an empty one")
    return LocalPlace()

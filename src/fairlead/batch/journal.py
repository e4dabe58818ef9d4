"""What is remembered of a file that was scored, so that it is not scored again.

An entry is a file of its own, put in place whole when the output is. Layer L3; imports `places` and `formats`.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from fairlead.batch.formats import Form
from fairlead.batch.places.place import Place, Stamp


class Entry(Struct, frozen=True):
    """What was read, with what, and what came of it.

    Parameters
    ----------
    input : where it was read.
    stamp : of the input before it was read; None of a database.
    digest : of the bundle.
    options_digest : of the options that change the output, see `options_digest`.
    rows_in, rows_out, rejects : rows; the first is the sum of the others.
    duration_s : seconds that it took.
    output_size_bytes : length of the output.
    """

    input: str
    stamp: Stamp | None
    digest: str
    options_digest: str
    rows_in: int
    rows_out: int
    rejects: int
    duration_s: float
    output_size_bytes: int


def options_digest(keep: tuple[str, ...] | None, encoding: str, output_form: Form) -> str:
    """Give the digest of what, beside input and bundle, an output is made of.

    Parameters
    ----------
    keep : the columns that are kept, None for all.
    encoding : of CSV that is read.
    """
    data = msgspec.json.encode([keep, encoding, output_form.name, output_form.compression])
    return hashlib.sha256(data).hexdigest()


def read(place: Place, path: str) -> Entry | None:
    """Read an entry; None where there is none, or none that can be understood: the file is then done again."""
    data = place.get(path)
    try:
        return None if data is None else msgspec.json.decode(data, type=Entry)
    except msgspec.DecodeError:
        return None


def write(place: Place, path: str, entry: Entry) -> None:
    """Put an entry in place: the last that is done for a file."""
    place.put(path, msgspec.json.encode(entry) + b"\n")


def is_done(
    entry: Entry, input: str, stamp: Stamp | None, digest: str, options_digest: str, output_stamp: Stamp | None
) -> bool:
    """Whether a file need not be scored again.

    Parameters
    ----------
    input : where it is read.
    stamp : of the input now, None for a database, of which nobody knows whether it changed.
    digest : of the bundle now.
    options_digest : of the options now.
    output_stamp : of the output, None where there is none.
    """
    if stamp is None or output_stamp is None:
        return False
    was = entry.input, entry.stamp, entry.digest, entry.options_digest, entry.output_size_bytes
    return was == (input, stamp, digest, options_digest, output_stamp.size_bytes)

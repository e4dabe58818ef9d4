"""What a run reads and writes, known before the first row is scored.

Layer L3; imports `inputs`, `outputs` and what they import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from posixpath import join
from urllib.parse import urlsplit

from fairlead.batch import templates
from fairlead.batch.formats import Form
from fairlead.batch.formats.form import FormatName
from fairlead.batch.inputs import batches_of, refuse_unknown, relative
from fairlead.batch.outputs import (
    Made,
    form_of,
    is_for_several,
    names_directory,
    refuse_own,
    refuse_twins,
    to_directory,
    to_file,
)
from fairlead.batch.places import place_of, scheme
from fairlead.errors import InputError, OutputError


@dataclass(frozen=True)
class Item:
    """One input and what is written for it.

    Parameters
    ----------
    input, output : a file's path each, or a database's address.
    input_form, output_form : how they are written; None for a database.
    rejects, journal : the side files.
    """

    input: str
    output: str
    input_form: Form | None
    output_form: Form
    rejects: str
    journal: str

    @property
    def shown(self) -> str:
        """The input as it may be told: a database's address without user, password and settings."""
        if self.input_form is not None:
            return self.input
        parts = urlsplit(self.input)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class Plan:
    """All that a run reads and writes.

    Parameters
    ----------
    items : in the order in which they are scored.
    root : the directory that all outputs are in or below.
    success : the file that is put there last.
    """

    items: tuple[Item, ...]
    root: str
    success: str


def is_database(input: str) -> bool:
    """Whether an input is a database's address."""
    return scheme(input) in ("postgresql", "postgres")


def plan(
    input: str,
    output: str,
    dates: tuple[datetime, ...],
    format: FormatName | None,
    environ: Mapping[str, str],
    query: str | None = None,
) -> Plan:
    """Find the inputs and name the outputs.

    Parameters
    ----------
    input : a file, a directory, a glob or a database, and a template when there are dates.
    output : a file; or a directory, whose files are named like the inputs below the part of INPUT that is fixed.
    dates : what fills the templates, one after the other.
    format : of outputs whose name does not tell it; those of a directory are renamed to it.
    query : what to ask a database.

    Raises
    ------
    InputError, OutputError
        When something is missing, of an unknown format, or would be written over.
    """
    if is_database(input) != (query is not None):
        missing = "no query: give --query" if query is None else "a query: give postgresql://… as INPUT"
        raise InputError(f"expected a database with a query, or files without, got {missing}")
    templates.check("" if is_database(input) else input, output, dates)
    place_of(output, environ)
    if is_database(input):
        return _of_database(input, output, templates.fill(output, dates[0] if dates else templates.ANY), format)
    batches = batches_of(input, output, dates, environ)
    refuse_unknown(batches)
    into_directory = is_for_several(output, batches)
    if into_directory:
        made = to_directory(input, output, batches, format)
    else:
        made = [to_file(batch, format) for batch in batches]
    refuse_twins(made)
    refuse_own(batches, made)
    return _with_side_files(output, made, into_directory)


def _of_database(input: str, template: str, output: str, format: FormatName | None) -> Plan:
    if names_directory(output):
        raise OutputError(f"{output}: expected a file for what a query gives, found a directory: name a file in it")
    return _with_side_files(template, [Made(input, None, output, form_of(output, format))], False)


def _with_side_files(template: str, made: list[Made], into_directory: bool) -> Plan:
    root = _root(template, into_directory)
    if not into_directory and not templates.fields(template):
        name = relative(root, made[0].output)
        sides = [(f"_rejects.{name}.jsonl", f"_journal.{name}.json")]
        success = f"_SUCCESS.{name}"
    else:
        below = [relative(root, one.output) for one in made]
        sides = [(f"_rejects/{name}.jsonl", f"_journal/{name}.json") for name in below]
        success = "_SUCCESS"
    items = tuple(
        Item(one.input, one.output, one.input_form, one.output_form, join(root, rejects), join(root, journal))
        for one, (rejects, journal) in zip(made, sides, strict=True)
    )
    return Plan(items, root, join(root, success))


def _root(output: str, into_directory: bool) -> str:
    """Give the directory that the outputs of all dates are below."""
    parts = output.split("/")
    first = next((index for index, part in enumerate(parts) if templates.fields(part)), None)
    if first is None:
        first = len(parts) if into_directory else -1
    root = templates.fixed(parts[:first])
    if scheme(output) and root.count("/") < 2:
        raise OutputError(f"{output}: expected a bucket that is the same for all dates: put them behind it")
    return root

"""Where what is scored goes: how outputs are named, and what may not be written over.

Layer L3; imports `inputs` and what that imports.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from posixpath import join

from fairlead.batch import templates
from fairlead.batch.formats import Form, named
from fairlead.batch.formats.form import FormatName
from fairlead.batch.inputs import Batch, fixed_folder, fixed_of_all, relative
from fairlead.batch.places import names, scheme
from fairlead.errors import InputError, OutputError


@dataclass(frozen=True)
class Made:
    """An input and its output.

    Parameters
    ----------
    input_form : None for a database.
    """

    input: str
    input_form: Form | None
    output: str
    output_form: Form


def is_for_several(output: str, batches: list[Batch]) -> bool:
    """Whether OUTPUT is a directory, which is to hold files named like the inputs.

    Raises
    ------
    OutputError
        When it is the name of one file for several.
    """
    if any(names_directory(batch.output) for batch in batches):
        return True
    several = [batch for batch in batches if batch.is_several]
    if not several and (len(batches) == 1 or templates.fields(output)):
        return False
    try:
        named(batches[0].output)
    except InputError:
        return True
    raise OutputError(
        f"{output}: INPUT names several files, and this is the name of one: end it with / for a directory"
    )


def names_directory(output: str) -> bool:
    """Whether a name is that of a directory, by its end or because one is there."""
    return output.endswith("/") or (not scheme(output) and Path(output).is_dir())


def to_file(batch: Batch, format: FormatName | None) -> Made:
    """Name the one output of a date."""
    return Made(batch.files[0], named(batch.files[0]), batch.output, form_of(batch.output, format))


def to_directory(input: str, output: str, batches: list[Batch], format: FormatName | None) -> list[Made]:
    """Name the outputs below a directory like the inputs below the part of INPUT that is fixed."""
    made = []
    for batch in batches:
        # Where OUTPUT has the dates, their folders in INPUT need not be there again.
        base = fixed_folder(batch) if templates.fields(output) or not templates.fields(input) else fixed_of_all(input)
        folder = batch.output.rstrip("/") or "/"
        for file in batch.files:
            name, form = _renamed(relative(base, file), format)
            made.append(Made(file, named(file), join(folder, name), form))
    return made


def _renamed(name: str, format: FormatName | None) -> tuple[str, Form]:
    """Name an output like its input, in the format that was asked for; text that is compressed stays so."""
    form = named(name)
    if format in (None, form.name):
        return name, form
    assert format is not None
    to = Form(format, None if format == "parquet" else form.compression)
    return name.rsplit(".", 1 if form.compression is None else 2)[0] + to.suffix, to


def form_of(output: str, format: FormatName | None) -> Form:
    """Tell the form of an output by its name, or else by `--format`.

    Raises
    ------
    OutputError
        When neither tells it, or they disagree.
    """
    try:
        form = named(output)
    except InputError as error:
        if format is not None:
            return Form(format)
        raise OutputError(f"{error}, give --format, or end it with / for a directory") from None
    if format not in (None, form.name):
        raise OutputError(f"{output}: its name says {form.name} and --format {format}: leave out one of them")
    return form


def refuse_twins(made: list[Made]) -> None:
    """Refuse two inputs that would be written to one output.

    Raises
    ------
    OutputError
    """
    seen: dict[str, str] = {}
    for one in made:
        other = seen.setdefault(one.output, one.input)
        if other != one.input:
            raise OutputError(
                f"{one.output}: would be written for {other} and for {one.input}: "
                "put what tells them apart into OUTPUT's name"
            )


def refuse_own(batches: list[Batch], made: list[Made]) -> None:
    """Refuse to write over an input, or where the next run would take outputs for inputs.

    Raises
    ------
    OutputError
    """
    inputs = {_real(one.input) for one in made}
    outputs = [_real(one.output) for one in made]
    for output in outputs:
        if output in inputs:
            raise OutputError(f"{output}: is an input as well: write to another place")
    for batch in batches:
        if batch.is_several:
            _refuse_found(batch, outputs)


def _refuse_found(batch: Batch, outputs: list[str]) -> None:
    folder, segments = names.split(batch.pattern) if names.is_glob(batch.pattern) else (fixed_folder(batch), names.ALL)
    root = join(_real(folder), "")
    for output in outputs:
        if output.startswith(root) and names.matches(segments, output[len(root) :].split("/")):
            raise OutputError(
                f"{output}: is among what {batch.pattern} names, and the next run would score it again: "
                "write to another place"
            )


def _real(path: str) -> str:
    return path if scheme(path) else os.path.realpath(path)

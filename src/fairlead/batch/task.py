"""One file to be scored: how its input is opened and its output begun, here or on another machine.

Layer L3; imports `formats` and `places`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fairlead.batch import formats
from fairlead.batch.formats.form import Encoder, Reader, ReadOptions, Writer
from fairlead.batch.places import place_of
from fairlead.batch.places.place import Place, Stamp
from fairlead.batch.plan import Item
from fairlead.errors import InputError
from fairlead.schema import Schema


@dataclass(frozen=True)
class Task:
    """A file to be scored; it can be sent to another machine that sees the same files.

    Parameters
    ----------
    item : where it is read and written.
    schema : of the bundle.
    options : how to read.
    query : for a database.
    """

    item: Item
    schema: Schema
    options: ReadOptions
    query: str | None = None

    def place(self) -> Place | None:
        """Give the place that the input is in, None of a database. To make one takes time: keep it for all tasks."""
        return None if self.query is not None else place_of(self.item.input, os.environ)

    def stamp(self, place: Place | None) -> Stamp | None:
        """Tell which state the input is in; None of a database, which does not tell."""
        if place is None:
            return None
        found = place.stamp(self.item.input)
        if found is None:
            raise InputError(f"{self.item.input}: no such file: see its name")
        return found

    @contextmanager
    def open(self, place: Place | None) -> Iterator[Reader]:
        """Open the input.

        Parameters
        ----------
        place : as `place` gave it.

        Raises
        ------
        InputError
            When it is not there, or not what its name says.
        """
        path, form = self.item.input, self.item.input_form
        if place is None or form is None:
            from fairlead.batch.formats import postgres

            assert self.query is not None, "checked by the plan"
            with postgres.reader(path, self.query, self.schema, self.options) as reader:
                yield reader
            return
        with place.open(path) as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            module = formats.module(form.name)
            yield module.reader(file, size_bytes, path, form.compression, self.schema, self.options)

    def encoder(self, schema: pa.Schema) -> Encoder:
        """Give what encodes scored rows of a schema."""
        form = self.item.output_form
        found: Encoder = formats.module(form.name).encoder(schema, form.compression)
        return found

    def writer(self, file: Any, schema: pa.Schema) -> Writer:
        """Begin the output in an open file."""
        form = self.item.output_form
        found: Writer = formats.module(form.name).writer(file, schema, form.compression)
        return found

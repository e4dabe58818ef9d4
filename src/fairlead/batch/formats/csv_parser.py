"""Blocks of CSV become rows: lines are taken apart, and what they hold is read by the schema.

Columns are read whole; a row for which that finds anything wrong, or cannot decide, is read once more as over HTTP,
so that its values mean the same and its problems are told the same.

Layer L3; imports pyarrow when a block comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.batch.formats.csv_columns import typed
from fairlead.batch.formats.form import Rows
from fairlead.batch.formats.text_blocks import Block
from fairlead.errors import InputError
from fairlead.predict.tables import arrow_type
from fairlead.predict.validate import Row, Validator
from fairlead.schema import Feature, Problem, Schema

if TYPE_CHECKING:
    import pyarrow as pa

_Texts = dict[int, Any]  # Arrow arrays by the column's place in the header
_Rejections = dict[int, tuple[Problem, ...]]


@dataclass(frozen=True)
class CsvParser:
    """Makes rows of blocks of text. See `Parser`.

    Parameters
    ----------
    header : names of all columns.
    features : place in `header` by name of feature; those without a column have a default.
    kept : places in `header`.
    is_text : whether kept columns stay text.
    where : path of the file, for messages.

    Raises
    ------
    InputError
        From `rows`, when the text is in another encoding than UTF-8.
    """

    schema: Schema
    header: tuple[str, ...]
    features: dict[str, int]
    kept: tuple[int, ...]
    is_text: bool
    where: str

    def kept_schema(self) -> pa.Schema:
        """Give names and types of the columns that are kept; words may come as a dictionary."""
        import pyarrow as pa

        types: dict[int, pa.DataType] = {}
        if not self.is_text:
            types = {self.features[feature.name]: arrow_type(feature.type) for feature in self._present()}
        return pa.schema([(self.header[place], types.get(place, pa.string())) for place in self.kept])

    def rows(self, chunk: Block) -> Rows:
        import pyarrow as pa

        self._check_encoding(chunk)
        texts, rejections = self._lines(chunk)
        n_rows = len(texts[0]) + len(rejections)
        places = np.delete(np.arange(n_rows, dtype=np.int64), list(rejections))
        columns, refused = self._read(texts, places)
        table = kept = pa.table([texts[0]], names=[""]).select([])  # which knows its rows even without columns
        for name, column in columns.items():
            table = table.append_column(name, column)
        if not self.is_text:
            texts |= {self.features[name]: column for name, column in columns.items()}
        for place in self.kept:
            kept = kept.append_column(self.header[place], texts[place])
        if refused:
            good = ~np.isin(places, list(refused))
            places, table, kept = places[good], table.filter(good), kept.filter(good)
            rejections = dict(sorted((rejections | refused).items()))
        return Rows(table, kept, n_rows, places if rejections else None, rejections)

    def _check_encoding(self, block: Block) -> None:
        try:
            block.text.decode()
        except UnicodeDecodeError as error:
            at = block.start + error.start
            raise InputError(f"{self.where}: expected UTF-8, got another byte at {at}: see --encoding") from error

    def _present(self) -> list[Feature]:
        return [feature for feature in self.schema.features if feature.name in self.features]

    def _lines(self, block: Block) -> tuple[_Texts, _Rejections]:
        """Take lines apart: columns of text that are of use, and the lines that have another number of fields."""
        import pyarrow as pa
        import pyarrow.csv as pa_csv

        ragged: _Rejections = {}

        def skip(line: pa_csv.InvalidRow) -> str:
            place = line.number - 1
            ragged[place] = (Problem(f"$[{place}]", f"{line.expected_columns} fields", str(line.actual_columns)),)
            return "skip"

        words = {self.features[f.name] for f in self._present() if f.type == "string" and f.categories}
        types = {str(place): _text_type(place in words) for place in sorted({0, *self.features.values(), *self.kept})}
        table = pa_csv.read_csv(
            pa.BufferReader(block.text),
            pa_csv.ReadOptions(
                use_threads=False,  # so that lines are numbered; other blocks are read in other threads
                block_size=len(block.text) + 1,
                column_names=[str(place) for place in range(len(self.header))],
            ),
            pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            pa_csv.ConvertOptions(
                check_utf8=False,  # done already
                include_columns=list(types),
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        return {int(name): table.column(name).combine_chunks() for name in types}, ragged

    def _read(self, texts: _Texts, places: npt.NDArray[np.int64]) -> tuple[dict[str, Any], _Rejections]:
        """Read the features: their columns by name, and what is wrong by place in the block."""
        import pyarrow as pa
        import pyarrow.compute as pc

        columns: dict[str, Any] = {}
        left: dict[str, npt.NDArray[np.bool_]] = {}
        for feature in self._present():
            columns[feature.name], left[feature.name] = typed(texts[self.features[feature.name]], feature.type)
        some = np.flatnonzero(np.logical_or.reduce(list(left.values())))
        if not some.size:
            return columns, {}
        lines = zip(*(texts[place].take(pa.array(some)).to_pylist() for place in self.features.values()), strict=True)
        fine, rejections = _read_each(
            self.schema, [dict(zip(columns, line, strict=True)) for line in lines], places[some]
        )
        for name, column in columns.items():
            i = self.schema.names.index(name)
            values = {some[n]: row[i] for n, row in fine.items() if left[name][some[n]]}
            mask = np.zeros(len(places), dtype=np.bool_)
            mask[list(values)] = True
            if values:
                new = pa.array(list(values.values()), column.type)
                columns[name] = pc.replace_with_mask(column, pa.array(mask), new)
        return columns, rejections


def _read_each(
    schema: Schema, lines: Sequence[dict[str, str | None]], places: npt.NDArray[np.int64]
) -> tuple[dict[int, Row], _Rejections]:
    """Read lines one by one: rows by their number among the lines, and what is wrong by their places."""
    validator = Validator(schema)
    records: list[object] = []
    told: dict[int, list[Problem]] = {}
    for n, line in enumerate(lines):
        record, unread = validator.parse_text({name: text or "" for name, text in line.items()})
        records.append(record)
        if unread:
            told[n] = [Problem(f"$[{places[n]}]{p.path[1:]}", p.expected, p.got) for p in unread]
    checked = validator.check(records)
    rejections: _Rejections = {}
    for n in sorted(told.keys() | checked.rejections.keys()):
        found = told.get(n, [])
        # A field that could not be read is missing in the record: it was told already, and better.
        paths = {problem.path for problem in found}
        others = [problem.moved(int(places[n])) for problem in checked.rejections.get(n, ())]
        rejections[int(places[n])] = (*found, *(problem for problem in others if problem.path not in paths))
    return {n: row for row, n in zip(checked.rows, checked.places, strict=True) if n not in told}, rejections


def _text_type(is_word: bool) -> pa.DataType:
    """Give the type that text is read in: words of known categories as places in a list of words."""
    import pyarrow as pa

    return pa.dictionary(pa.int32(), pa.string()) if is_word else pa.string()

"""Records that came in other shapes: as arrays in the schema's order, as columns, under the names of training.

They become records, so that one check and one set of messages serves all forms; what is wrong is told at
the place in the request where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from fairlead.predict.intake import Intake
from fairlead.predict.validate import child_path, type_name
from fairlead.schema import Problem, Schema
from fairlead.web.dialects import Content, Question
from fairlead.web.jobs import Source
from fairlead.web.problems import invalid, invalid_array
from fairlead.web.sources import MadeRecords

Write = Callable[[list[Any]], Content]

# More rows than this are checked in slices, between those of others.
_LARGE_ROWS = 512


def ask(source: Source, write: Write, origin: str) -> Question:
    """Ask for all rows of a source, at once when they are few."""
    if source.n_rows > _LARGE_ROWS:
        return Question((), write, origin, source)
    checked = source.take(0, source.n_rows)
    if checked.rejections:
        raise invalid_array(checked.rejections, source.n_rows, origin)
    return Question(checked.rows, write, origin)


def column_keys(schema: Schema, columns: Sequence[str], path: str = "$") -> list[str]:
    """Give the key in a record for each column, a feature's name for one under its name of training.

    Raises
    ------
    Refusal
        When a feature has no column or several; with ``extra: forbid`` for one that is no feature.
    """
    keys = list(columns)
    problems: list[Problem] = []
    used: set[int] = set()
    for feature in schema.features:
        name = feature.name if feature.name in keys else feature.source
        count = columns.count(name)
        if count == 1:
            used.add(columns.index(name))
            keys[columns.index(name)] = feature.name
        elif count or feature.default is UNSET:
            got = f"{count} columns" if count else "none"
            problems.append(Problem(child_path(path, feature.name), f"a column of {feature.type}", got))
    if schema.extra == "forbid":
        others = [name for place, name in enumerate(columns) if place not in used]
        problems += [Problem(child_path(path, name), "no such column", "one") for name in dict.fromkeys(others)]
    if problems:
        raise invalid(problems, "the columns")
    return keys


class Rows:
    """Makes sources of records for one schema.

    Parameters
    ----------
    schema : what the model accepts.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._names = schema.names
        self._steps = _steps(schema.names)
        self._renamed = {f.source: f.name for f in schema.features if f.source != f.name}
        self._nullable_ints = tuple(f.name for f in schema.features if f.type == "int" and f.nullable)

    def of_instances(self, values: Sequence[Any], path: str, intake: Intake) -> Source:
        """Take objects, and arrays in the schema's order, at the JSONPath `path`."""
        keys = self._names
        steps = self._steps

        def make(start: int, stop: int) -> list[Any]:
            taken = values[start:stop]
            if any(type(value) is list for value in taken):
                _check_lengths(taken, len(keys), path, start)
                taken = [dict(zip(keys, v, strict=True)) if type(v) is list else v for v in taken]
            return self._plain(taken)

        def locate(place: int, rest: str) -> str:
            return f"{path}[{place}]{steps.get(rest, rest) if type(values[place]) is list else rest}"

        return MadeRecords(len(values), make, intake, locate)

    def of_records(self, values: Sequence[Any], intake: Intake) -> Source:
        """Take objects alone."""
        return MadeRecords(len(values), lambda start, stop: self._plain(values[start:stop]), intake)

    def of_record(self, value: Any, path: str, intake: Intake) -> Source:
        """Take one object, at the JSONPath `path`."""
        return MadeRecords(1, lambda start, stop: self._plain([value]), intake, lambda _, rest: path + rest)

    def of_table(self, columns: Sequence[str], values: Sequence[Any], path: str, intake: Intake) -> Source:
        """Take arrays in the order of `columns`, at the JSONPath `path`."""
        keys = column_keys(self._schema, columns, path)
        steps = _steps(keys)

        def make(start: int, stop: int) -> list[Any]:
            taken = values[start:stop]
            _check_lengths(taken, len(keys), path, start, others=False)
            return self._plain([dict(zip(keys, value, strict=True)) for value in taken])

        return MadeRecords(len(values), make, intake, lambda place, rest: f"{path}[{place}]{steps.get(rest, rest)}")

    def of_columns(self, columns: Mapping[str, Any], path: str, intake: Intake) -> Source:
        """Take arrays by column; each element may be in an array of its own, as a tensor of shape [n, 1] has them."""
        keys = column_keys(self._schema, list(columns), path)
        paths = [child_path(path, name) for name in columns]
        lists = list(columns.values())
        problems = [
            Problem(where, "an array", type_name(values))
            for where, values in zip(paths, lists, strict=True)
            if type(values) is not list
        ]
        if not problems:
            n_rows = len(lists[0]) if lists else 0
            problems = [
                Problem(where, f"an array of {n_rows} values, as the first", f"an array of {len(values)}")
                for where, values in zip(paths, lists, strict=True)
                if len(values) != n_rows
            ]
        if problems:
            raise invalid(problems, "the columns")
        flat = [
            [value[0] for value in values]
            if values and all(type(v) is list and len(v) == 1 for v in values)
            else values
            for values in lists
        ]
        wheres = {child_path("", key): where for key, where in zip(keys, paths, strict=True)}
        columns = dict(zip(keys, flat, strict=True))
        return self.of_lists(columns, n_rows, intake, lambda place, rest: f"{wheres.get(rest, path + rest)}[{place}]")

    def of_lists(
        self,
        columns: Mapping[str, Sequence[Any]],
        n_rows: int,
        intake: Intake,
        locate: Callable[[int, str], str],
    ) -> Source:
        """Take sequences of `n_rows` by the key that they have in a record; `locate` as of `MadeRecords`."""
        keys, lists = tuple(columns), tuple(columns.values())

        def make(start: int, stop: int) -> list[Any]:
            if not lists:
                return [{} for _ in range(start, stop)]
            slices = [values[start:stop] for values in lists]
            return self._plain([dict(zip(keys, row, strict=True)) for row in zip(*slices, strict=True)])

        return MadeRecords(n_rows, make, intake, locate)

    def _plain(self, records: Sequence[Any]) -> list[Any]:
        """Bring keys to the features' names; pandas writes integers among nulls as 41.0."""
        plain = [_renamed(record, self._renamed) for record in records] if self._renamed else list(records)
        for name in self._nullable_ints:
            for place, record in enumerate(plain):
                if type(record) is dict and type(value := record.get(name)) is float and value.is_integer():
                    plain[place] = {**record, name: int(value)}
        return plain


def _renamed(record: Any, names: Mapping[str, str]) -> Any:
    if type(record) is not dict or not any(name in record for name in names):
        return record
    return {key if (name := names.get(key, key)) in record else name: value for key, value in record.items()}


def _steps(keys: Sequence[str]) -> dict[str, str]:
    """Give where in an array a value is, ``[2]``, by where it is in a record, ``.tenure``."""
    return {child_path("", key): f"[{place}]" for place, key in enumerate(keys)}


def _check_lengths(values: Sequence[Any], n_values: int, path: str, start: int, others: bool = True) -> None:
    """Refuse arrays of another length; and what is no array, unless there may be `others`."""
    expected = f"an array of {n_values} values"
    problems = []
    for place, value in enumerate(values, start):
        if type(value) is list:
            if len(value) != n_values:
                problems.append(Problem(f"{path}[{place}]", expected, f"an array of {len(value)}"))
        elif not others:
            problems.append(Problem(f"{path}[{place}]", expected, type_name(value)))
    if problems:
        raise invalid(problems, "the rows")

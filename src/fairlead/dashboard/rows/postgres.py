"""Rows of PostgreSQL, asked one by one with the user's query: the index goes in as a parameter, never as text of it.

The database compares it as a value of the type it has there, with an index of its own; what it finds is taken only if
its index is also written as it was asked for. Layer L3.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fairlead.dashboard.rows.address import without_password
from fairlead.dashboard.rows.connections import Server, state_of
from fairlead.dashboard.rows.lookup import MAX_LISTED, Found
from fairlead.dashboard.rows.options import RowsOptions
from fairlead.dashboard.rows.records import RowMaker, check_columns, index_text, outcome
from fairlead.errors import DashboardError
from fairlead.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

PLACEHOLDER = "{index}"
_NOT_SUCH_A_VALUE = "22"  # the class of errors such as text where a number is wanted


class PostgresSource:
    """Asks a database for rows. See `Source`. Each process and each thread at work has a connection of its own.

    Parameters
    ----------
    part : of the manifest, from `prepare_postgres`.
    schema : of the model.
    uri : the address, with its password unless the environment has it.
    """

    ttl_s: float | None = 30.0

    def __init__(self, part: Mapping[str, Any], schema: Schema, uri: str) -> None:
        self._server = Server(uri)
        self._rows = RowMaker(schema)
        self._index: str | None = part["index"]
        self._target: str | None = part["target"]
        self._parameter = f"($1::text::{part['type']})"
        self._query = _one_row(part["query"]).replace(PLACEHOLDER, self._parameter)
        self._index_query: str | None = part["index_query"]

    def find(self, index: str) -> Found | None:
        if not _is_unicode(index):
            return None
        try:
            table = self._server.ask(self._query, [index])
        except self._server.errors as error:
            if state_of(error).startswith(_NOT_SUCH_A_VALUE) and not self._is_value(index):
                return None
            raise self._server.told(error, "--query") from error
        if table.num_rows > 1:
            raise DashboardError(f"{self._server.shown}: more than one row has the index {index!r}: see --query")
        if not table.num_rows:
            return None
        values = _values(table)
        if self._index is not None and not _is_written(index_text(values[self._index]), index):
            return None
        record = self._rows.record(values, self._server.shown)
        return Found(record, outcome(values.get(self._target)) if self._target is not None else None)

    def indexes(self) -> list[str] | None:
        if self._index_query is None:
            return None
        try:
            table = self._server.ask(_listing(self._index_query), [])
        except self._server.errors as error:
            raise self._server.told(error, "--index-query") from error
        texts = (index_text(_value(scalar)) for scalar in table.column(0))
        return [text for text in texts if text is not None]

    def close(self) -> None:
        self._server.close()

    def _is_value(self, index: str) -> bool:
        """Whether an index can be of the type that the query compares it with."""
        try:
            self._server.ask(f"select {self._parameter} is null", [index])
        except self._server.errors as error:
            if state_of(error).startswith(_NOT_SUCH_A_VALUE):
                return False
            raise self._server.told(error, "--query") from error
        return True


def prepare_postgres(options: RowsOptions, schema: Schema) -> dict[str, Any]:
    """Have the database look at a query, without a row of it. See `prepare`.

    Returns
    -------
    The part of the manifest: the address without its password, and the type that the index is compared as.
    """
    shown = without_password(options.source)
    query, index = options.query, options.index
    if query is None or PLACEHOLDER not in query:
        example = f"`select * from rides where ride_id = {PLACEHOLDER}`"
        got = "none" if query is None else "another"
        raise DashboardError(f"{shown}: expected a query such as {example}, got {got}: see --query")
    server = Server(options.source)
    where = "--query"
    try:
        kind = _type_of_index(server, query)
        nothing = server.ask(_one_row(query).replace(PLACEHOLDER, f"($1::text::{kind})"), [None])
        where = "--index-query"
        if options.index_query is not None:
            server.ask(_listing(options.index_query), [])
    except server.errors as error:
        raise server.told(error, where) from error
    finally:
        server.close()
    columns = nothing.column_names
    if index is not None and index not in columns:
        raise DashboardError(
            f"{shown}: the query's answer has no column {index!r}, but {', '.join(columns)}: select it too"
        )
    check_columns(columns, schema, shown)
    used = {name for feature in schema.features for name in (feature.name, feature.source)} | {index, options.target}
    twice = [name for name in used if columns.count(name) > 1]
    if twice:
        raise DashboardError(f"{shown}: the query's answer has several columns {twice[0]!r}: select one of them")
    return {
        "kind": "postgres",
        "source": shown,
        "query": query,
        "type": kind,
        "index": index,
        "index_query": options.index_query,
        "target": options.target if options.target in columns else None,
    }


def _type_of_index(server: Server, query: str) -> str:
    """Ask the database as what it compares the index, which a parameter without a type is taken for."""
    with server.connected() as connection, connection.cursor() as cursor:
        cursor.execute(f"PREPARE fairlead AS {_one_row(query).replace(PLACEHOLDER, '$1')}")
        cursor.execute("select unnest(parameter_types)::text from pg_prepared_statements where name = 'fairlead'")
        kinds = cursor.fetchall()
    if not kinds:
        raise DashboardError(f"{server.shown}: {PLACEHOLDER} is quoted in the query: write it without quotes")
    # `character` by itself is one letter, to which an index would be cut.
    return "bpchar" if kinds[0][0] == "character" else str(kinds[0][0])


def _one_row(query: str) -> str:
    """Ask for a row and for one more, lest a query that forgets its index brings millions."""
    return f"select * from (\n{_bare(query)}\n) as found limit 2"


def _listing(query: str) -> str:
    return f"select * from (\n{_bare(query)}\n) as listed limit {MAX_LISTED + 1}"


def _bare(query: str) -> str:
    return query.strip().rstrip(";")


def _is_unicode(text: str) -> bool:
    """Whether a text has no half of a character, as JSON may, but no database."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_written(found: str | None, asked: str) -> bool:
    """Whether an index is the one asked for; ``char(8)`` is filled up with spaces."""
    return found is not None and found.rstrip(" ") == asked.rstrip(" ")


def _values(row: pa.Table) -> dict[str, Any]:
    return {name: _value(column[0]) for name, column in zip(row.column_names, row.columns, strict=True)}


def _value(scalar: pa.Scalar) -> Any:
    value = scalar.as_py()
    is_numeric = getattr(scalar.type, "type_name", None) == "numeric"
    return Decimal(value) if is_numeric and value is not None else value

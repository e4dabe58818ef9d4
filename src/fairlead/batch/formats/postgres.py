"""A query of PostgreSQL, read as it is answered: never whole, in a transaction that can change nothing.

Layer L3; imports pyarrow, and ADBC's driver when a query is asked. No message holds the password of an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

import pyarrow as pa

from fairlead.batch.formats.form import CHUNK_ROWS, Parser, Piece, ReadOptions
from fairlead.batch.formats.parquet import table_parser
from fairlead.batch.formats.postgres_types import PostgresParser, plain_table
from fairlead.errors import InputError
from fairlead.extras import require
from fairlead.schema import Schema

FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_BATCH_BYTES = 8 << 20
_PASSWORD = re.compile(r"^(\w+://[^:@/?]*:)(.*)(@)", re.DOTALL)
_PARAMETER = re.compile(r"([?&](?:ssl)?password=)([^&]*)", re.IGNORECASE)


class PostgresReader:
    """Reads what a query gives. See `Reader`; to be used in a `with` statement.

    Raises
    ------
    InputError
        When the server cannot be reached or refuses the query, or the answer lacks a column; from `chunks`, when the
        query fails midway or the server goes away.
    """

    n_rows: int | None = None
    pieces: Sequence[Piece] = (None,)

    def __init__(self, uri: str, query: str, schema: Schema, options: ReadOptions) -> None:
        self._uri = uri
        self._dbapi = require("adbc_driver_postgresql.dbapi", "postgres")
        _check_password(uri)
        try:
            self._connection = self._dbapi.connect(uri)
        except self._dbapi.Error as error:
            raise self._told(error, "no connection", "see the address and whether the server is up") from error
        try:
            found = plain_table(self._ask(query).empty_table(), schema).schema
            parser, _, self.kept_schema = table_parser(found, display(uri), schema, options)
            self.parser: Parser = PostgresParser(schema, parser)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> PostgresReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._batches.close()
        self._cursor.close()
        self._connection.close()

    def chunks(self, piece: Piece = None) -> Iterator[tuple[pa.Table, float | None]]:
        try:
            for batch in self._batches:
                for start in range(0, batch.num_rows, CHUNK_ROWS):
                    yield pa.Table.from_batches([batch.slice(start, CHUNK_ROWS)]), None
        except (self._dbapi.Error, pa.ArrowException, OSError) as error:
            raise self._told(error, "the answer broke off", "see the server and the query, and run it again") from error

    def _ask(self, query: str) -> pa.Schema:
        """Send the query, and give the schema of its answer."""
        options = require("adbc_driver_postgresql", "postgres").StatementOptions
        size = {options.BATCH_SIZE_HINT_BYTES.value: str(_BATCH_BYTES)}
        self._cursor = self._connection.cursor(adbc_stmt_kwargs=size)
        try:
            self._cursor.execute("SET TRANSACTION READ ONLY")
            # The driver puts it in brackets: a comment shall not hide the one that closes.
            self._cursor.execute(query.strip().rstrip(";") + "\n")
            self._batches: pa.RecordBatchReader = self._cursor.fetch_record_batch()
        except self._dbapi.Error as error:
            raise self._told(error, "the query is refused", "see --query") from error
        found: pa.Schema = self._batches.schema
        if not found.names:
            raise InputError(f"{display(self._uri)}: expected a query that gives rows, got another: see --query")
        return found

    def _told(self, error: Exception, what: str, mend: str) -> InputError:
        line = str(error).partition("\n")[0]
        reason = re.split(r"(?:ERROR|FATAL): +|\[libpq\] ", line)[-1]
        for secret in _secrets(self._uri):
            reason = reason.replace(secret, "***")
        return InputError(f"{display(self._uri)}: {what}: {reason}: {mend}")


def reader(uri: str, query: str, schema: Schema, options: ReadOptions) -> PostgresReader:
    """Ask a database; see `PostgresReader`."""
    return PostgresReader(uri, query, schema, options)


def display(uri: str) -> str:
    """Give an address without its password.

    >>> display("postgresql://ana:secret@db.local/rides?sslmode=require")
    'postgresql://ana:***@db.local/rides?sslmode=require'
    """
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1***\3", uri))


def _secrets(uri: str) -> list[str]:
    """Find the passwords in an address, as they are written and as they are meant, the longest first."""
    found = [match[2] for match in (_PASSWORD.search(uri), *_PARAMETER.finditer(uri)) if match and match[2]]
    return sorted({*found, *map(unquote, found)}, key=len, reverse=True)


def _check_password(uri: str) -> None:
    """Refuse a password that would be read as another part of the address, and be shown in a message."""
    match = _PASSWORD.search(uri)
    odd = sorted(set(match[2]) & set("/@?# ")) if match else []
    if odd:
        told = ", ".join(f"`{letter}` as %{ord(letter):02X}" for letter in odd)
        raise InputError(f"{display(uri)}: expected {FORM} with a password that has {told}: write it so")

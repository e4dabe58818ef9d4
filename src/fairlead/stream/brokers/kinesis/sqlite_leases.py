"""Leases in a SQLite file, for copies on one machine."""

from __future__ import annotations

from pathlib import Path

from fairlead.stream.brokers.kinesis.leases import Lease
from fairlead.stream.brokers.kinesis.shards import SHARD_END
from fairlead.stream.checkpoints import SqliteFile

_TABLE = """
CREATE TABLE IF NOT EXISTS kinesis_lease (
    group_name TEXT NOT NULL, stream TEXT NOT NULL, shard TEXT NOT NULL,
    checkpoint TEXT NOT NULL, parents TEXT NOT NULL, owner TEXT, counter INTEGER NOT NULL,
    PRIMARY KEY (group_name, stream, shard)
) WITHOUT ROWID
"""
_COLUMNS = "shard, checkpoint, parents, owner, counter"
_OF_GROUP = "group_name = ? AND stream = ?"
_OWN = f"{_OF_GROUP} AND shard = ? AND owner = ?"


class SqliteLeases:
    """See `Leases`. Groups and streams share a file: each row names both.

    Parameters
    ----------
    path : of the file.
    group, stream : whose leases these are.
    """

    def __init__(self, path: Path, group: str, stream: str) -> None:
        self._path = path
        self._which = (group, stream)
        self._opened: SqliteFile | None = None

    @property
    def _file(self) -> SqliteFile:
        if self._opened is None:
            self._opened = SqliteFile(self._path, _TABLE)
        return self._opened

    def open(self) -> None:
        self._file  # noqa: B018  # opens it

    def all(self) -> list[Lease]:
        rows = self._file.run(f"SELECT {_COLUMNS} FROM kinesis_lease WHERE {_OF_GROUP} ORDER BY shard", *self._which)
        return [_lease(*row) for row in rows]

    def create(self, lease: Lease) -> None:
        values = (lease.shard, lease.checkpoint, " ".join(lease.parents), lease.owner, lease.counter)
        self._file.run("INSERT OR IGNORE INTO kinesis_lease VALUES (?, ?, ?, ?, ?, ?, ?)", *self._which, *values)

    def take(self, seen: Lease, owner: str) -> Lease | None:
        rows = self._file.run(
            f"UPDATE kinesis_lease SET owner = ?, counter = counter + 1"
            f" WHERE {_OF_GROUP} AND shard = ? AND owner IS ? AND counter = ? AND checkpoint <> '{SHARD_END}'"
            f" RETURNING {_COLUMNS}",
            *(owner, *self._which, seen.shard, seen.owner, seen.counter),
        )
        return _lease(*rows[0]) if rows else None

    def renew(self, shard: str, owner: str) -> bool:
        return self._write("counter = counter + 1", shard, owner)

    def keep(self, shard: str, owner: str, checkpoint: str) -> bool:
        return self._write("checkpoint = ?", shard, owner, checkpoint)

    def release(self, shard: str, owner: str) -> None:
        self._write("owner = NULL, counter = counter + 1", shard, owner)

    def delete(self, shard: str) -> None:
        self._file.run(f"DELETE FROM kinesis_lease WHERE {_OF_GROUP} AND shard = ?", *self._which, shard)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _write(self, change: str, shard: str, owner: str, *values: str) -> bool:
        statement = f"UPDATE kinesis_lease SET {change} WHERE {_OWN} RETURNING shard"
        return bool(self._file.run(statement, *values, *self._which, shard, owner))


def _lease(shard: str, checkpoint: str, parents: str, owner: str | None, counter: int) -> Lease:
    return Lease(shard, checkpoint, tuple(parents.split()), owner, counter)

"""Where rows come from, as the user says it.

Layer L3; stdlib only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_POSTGRES = ("postgresql://", "postgres://")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class RowsOptions:
    """Where rows come from.

    Parameters
    ----------
    source : a file (``rides.parquet``, ``.csv``, ``.jsonl``), ``postgresql://…`` or ``module:function``.
    index : the column that rows are looked up by.
    target : the column of the observed outcome; rows that have none have no outcome.
    query : of a database, with ``{index}`` where the index goes: ``select * from rides where ride_id = {index}``.
    index_query : of a database, gives the indexes to choose from in its first column.
    """

    source: str
    index: str | None = None
    target: str | None = None
    query: str | None = None
    index_query: str | None = None


def is_postgres(source: str) -> bool:
    """Whether a source is the address of a database."""
    return source.startswith(_POSTGRES)


def is_function(source: str) -> bool:
    """Whether a source is written as an import path."""
    return _FUNCTION.fullmatch(source) is not None

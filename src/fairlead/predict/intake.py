"""What can be told of a record before its model runs: the schema's part of a predictor.

A process that only takes requests in, because the model lives in another, needs this and no engine.

Layer L1; imports msgspec and numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from fairlead.bundle.manifest import Manifest
from fairlead.predict.validate import Row, Validated, Validator
from fairlead.schema import Problem, Schema


@dataclass
class Counts:
    """What came in since the start, for metrics.

    Parameters
    ----------
    rows, rejected : records predicted and refused.
    ignored_keys : keys of records that are no feature, and were not refused.
    """

    rows: int = 0
    rejected: int = 0
    ignored_keys: int = 0


class Intake:
    """Checks records for one bundle and counts what it ignored. Threads may share it.

    Parameters
    ----------
    manifest : of the bundle.
    digest : the bundle's own SHA-256.
    """

    def __init__(self, manifest: Manifest, digest: str) -> None:
        self.manifest = manifest
        self.digest = digest
        self.name = manifest.name
        self.version = manifest.version
        self.schema: Schema = manifest.schema
        self.counts = Counts()
        self._validator = Validator(manifest.schema)

    def check(self, records: Sequence[object]) -> Validated:
        """Check decoded records; never raises for what is in them."""
        checked = self._validator.check(records)
        self.counts.ignored_keys += checked.ignored_keys
        return checked

    def read(self, body: bytes) -> Row | None:
        """Read one JSON record in one step, None where it needs `check`, as with a problem or other keys."""
        return self._validator.read(body)

    def row_type(self, others: Mapping[str, Any], *, takes_unseen: bool = True) -> type[Struct] | None:
        """Give what msgspec decodes a record of JSON as, for `rows`; it may be a part, or have `others`."""
        return self._validator.row_type(others, takes_unseen=takes_unseen)

    def rows(self, records: Sequence[Struct]) -> list[Row] | None:
        """Make rows of records that were decoded as `row_type`; None where one needs `check`."""
        return self._validator.rows(records)

    def parse_text(self, fields: Mapping[str, str]) -> tuple[dict[str, object], list[Problem]]:
        """Read one record from text, as in a query string or a CSV row.

        Returns
        -------
        The record, and a problem at ``$.name`` for each field that is no such value.
        """
        return self._validator.parse_text(fields)

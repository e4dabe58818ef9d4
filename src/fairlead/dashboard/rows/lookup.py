"""Rows of any source, kept for a while after they were looked up.

Layer L3; imports nothing that a source needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from fairlead.dashboard.rows.cache import Cache
from fairlead.errors import DashboardError

# More than a dropdown can show. A source lists one more at most, to tell that there are too many.
MAX_LISTED = 1000
_CAPACITY = 1024
# A longer index is looked up each time, lest somebody fills the memory with what they type.
_LONGEST_KEPT = 200


@dataclass(frozen=True)
class Found:
    """A row.

    Parameters
    ----------
    record : by the schema's names, as JSON has values.
    y : what was observed; None when it is not known.
    """

    record: dict[str, Any]
    y: Any | None


class Source(Protocol):
    """Where rows are. Threads may share it.

    Attributes
    ----------
    ttl_s : for how long a row that was found is taken to be so; None for ever.
    """

    ttl_s: float | None

    def find(self, index: str) -> Found | None:
        """Look a row up; None when there is none of this index."""

    def indexes(self) -> list[str] | None:
        """List at least all indexes, or the first `MAX_LISTED` + 1; None when they cannot be listed."""

    def close(self) -> None:
        """Let go of files and connections."""


class CachedRows:
    """Looks rows of a source up. See `Rows`."""

    def __init__(self, source: Source) -> None:
        self.trouble: str | None = None
        self._source = source
        self._cache: Cache[Found | None] = Cache(_CAPACITY, source.ttl_s)

    def record(self, index: str) -> dict[str, Any] | None:
        found = self._find(index)
        return None if found is None else dict(found.record)

    def y(self, index: str) -> Any | None:
        found = self._find(index)
        return None if found is None else found.y

    def exists(self, index: str) -> bool:
        return self._find(index) is not None

    def indexes(self) -> list[str] | None:
        try:
            listed = self._source.indexes()
        except DashboardError as error:
            self.trouble = str(error)
            return None
        return listed if listed is not None and len(listed) <= MAX_LISTED else None

    def close(self) -> None:
        self._source.close()

    def _find(self, index: str) -> Found | None:
        return self._ask(index) if len(index) > _LONGEST_KEPT else self._cache.get(index, self._ask)

    def _ask(self, index: str) -> Found | None:
        try:
            found = self._source.find(index)
        except DashboardError as error:
            self.trouble = str(error)
            raise
        self.trouble = None
        return found

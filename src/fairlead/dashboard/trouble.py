"""Why a store is not current: told in a file beside it, for the page of its dashboard."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fairlead.bundle.disk import replace_file


class Trouble(msgspec.Struct, frozen=True):
    """What keeps a dashboard from being built anew.

    Parameters
    ----------
    reason : for people.
    at : when it was found, RFC 3339, UTC.
    """

    reason: str
    at: str = ""

    @staticmethod
    def path(store: Path) -> Path:
        """Where it is told: ``titanic.dash.trouble.json`` for ``titanic.dash``."""
        return store.with_name(f"{store.name}.trouble.json")

    @classmethod
    def of(cls, store: Path) -> Trouble | None:
        """Read it; None when there is none, or it is being written."""
        try:
            return msgspec.json.decode(cls.path(store).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, store: Path) -> None:
        """Put it beside a store, with the time."""
        told = Trouble(self.reason, datetime.now(UTC).isoformat(timespec="seconds"))
        replace_file(self.path(store), msgspec.json.encode(told))

    @classmethod
    def clear(cls, store: Path) -> None:
        """Take it away, if it is there and can be."""
        with suppress(OSError):
            cls.path(store).unlink()

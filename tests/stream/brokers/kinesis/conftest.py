"""The servers of these tests, which are asked faster than one that counts the calls."""

from __future__ import annotations

import pytest

from fairlead.stream.brokers.kinesis import client, reader


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses; what is waited for in them stays the same."""
    monkeypatch.setattr(reader, "_EACH_S", 0.02)
    monkeypatch.setattr(reader, "_IDLE_S", 0.05)
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.02)

"""What changes the models takes an admin key, however the path is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.web.keys import make

CHANGES = (
    "POST /models/churn/reload",
    "PUT /models/churn/traffic",
    "POST /v2/repository/models/churn/load",
    "POST /v2/repository/models/churn/unload",
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("end", ["", "%0A"])
def test_a_change_takes_an_admin_key(
    in_process: Callable[..., Any], churn_bundle: Path, monkeypatch: pytest.MonkeyPatch, change: str, end: str
) -> None:
    method, path = change.split()
    assert in_process(churn_bundle).request(method, path + end).status_code == 403
    key, line = make("reader")
    monkeypatch.setenv("FAIRLEAD_API_KEYS", line)
    client = in_process(churn_bundle)
    assert client.request(method, path + end).status_code == 401
    assert client.request(method, path + end, headers={"x-api-key": key}).status_code == 403

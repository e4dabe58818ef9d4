"""The form of an answer is the one that a request likes best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.web.dialects.accept import ARROW, CSV, JSON_LINES, preferred

JSON = b"application/json"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", JSON),
        (b"text/csv", CSV),
        (b"TEXT/CSV;charset=utf-8", CSV),
        (b"text/csv;q=0.5, application/json", JSON),
        (b"text/csv;q=0.5, application/json;q=0.1", CSV),
        (b"text/csv, */*", CSV),
        (b"*/*, text/csv", JSON),
        (b"text/csv;q=0", JSON),
        (b"text/csv;q=x", JSON),
        (b"text/html,application/xhtml+xml,*/*;q=0.8", JSON),
        (ARROW + b", " + CSV, ARROW),
        (b"application/x-ndjson", JSON_LINES[1]),
        (b",;,", JSON),
    ],
)
def test_what_is_liked_best(accept: bytes, expected: bytes) -> None:
    assert preferred(accept) == expected


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_record_has_every_form_too(in_process: Callable[..., Any], flower_bundle: Path, method: str) -> None:
    client = in_process(flower_bundle)
    record = {"is_wild": True, "petals": 3, "length": 1.5, "width": 2.0}
    texts = {**record, "is_wild": "true"}
    how = {"params": texts} if method == "GET" else {"json": record}
    plain = client.request(method, "/predict", **how).json()
    lines = client.request(method, "/predict", headers={"accept": "application/jsonlines"}, **how)
    assert lines.json() == plain
    assert lines.headers["content-type"] == "application/jsonlines"
    csv = client.request(method, "/predict", headers={"accept": "text/csv"}, **how)
    assert csv.text.splitlines()[0].startswith("prediction,probabilities.aster,")
    assert csv.text.splitlines()[1].split(",")[0] == plain["prediction"]

"""What is sent of records and frames."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from client.replies import Script, ok
from fairlead.client import records
from fairlead.errors import InvalidRecords


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (math.nan, None),
        (np.float32("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (Decimal("0.1"), 0.1),
        (pd.Timestamp("2024-05-01 12:00:00.123456789"), "2024-05-01T12:00:00.123456Z"),
        (pd.Timestamp("2024-05-01 12:00", tz="Europe/Berlin"), "2024-05-01T12:00:00+02:00"),
        (np.datetime64("2024-05-01T12:00:00.5", "ns"), "2024-05-01T12:00:00.500000Z"),
        (datetime(2024, 5, 1, 12), "2024-05-01T12:00:00Z"),
        (datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=-3))), "2024-05-01T12:00:00-03:00"),
        (date(2024, 5, 1), "2024-05-01"),
        ([1], [1]),
    ],
)
def test_values_are_written_as_json(value: Any, sent: Any) -> None:
    script = Script(ok)
    with script.client() as client:
        client.predict({"x": value})
        client.predict([{"x": value}])
        if not isinstance(value, list):
            client.predict(pd.DataFrame({"x": pd.Series([value], dtype=object)}))
    bodies = [msgspec.json.decode(request.content) for request in script.requests]
    assert bodies == [{"x": sent}, [{"x": sent}], [{"x": sent}]][: len(bodies)]
    assert type(bodies[0]["x"]) is type(sent)


def test_columns_are_written_as_json() -> None:
    columns = {
        "int": pd.Series([1, None], dtype="Int64"),
        "float": pd.Series([1.5, math.nan], dtype="float32"),
        "bool": pd.Series([True, None], dtype="boolean"),
        "text": pd.Series(["a", None], dtype="string"),
        "word": pd.Series(["b", None], dtype="category"),
        "when": pd.to_datetime(pd.Series(["2024-05-01", None])),
        7: pd.Series([1, 2], dtype="uint8"),
    }
    script = Script(ok)
    with script.client() as client:
        client.predict(pd.DataFrame(columns))
    [first, second] = msgspec.json.decode(script.requests[0].content)
    when = "2024-05-01T00:00:00Z"
    assert first == {"int": 1, "float": 1.5, "bool": True, "text": "a", "word": "b", "when": when, "7": 1}
    assert second == {**dict.fromkeys(("int", "float", "bool", "text", "word", "when")), "7": 2}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ([{"x": 1.0}, {"x": math.inf}], "$[1].x"),
        ({"x y": -np.float32("inf")}, '$["x y"]'),
        (pd.DataFrame({"x": [0.0, 1.0, math.inf]}), "$[2].x"),
    ],
)
def test_an_infinity_is_refused_and_not_sent_as_null(data: Any, path: str) -> None:
    script = Script(ok)
    with script.client() as client, pytest.raises(InvalidRecords) as caught:
        client.predict(data)
    assert [(p.path, p.expected, p.got) for p in caught.value.problems] == [(path, "a finite number", "an infinity")]
    assert script.requests == []


def test_what_json_cannot_hold_is_refused() -> None:
    with Script(ok).client() as client:
        with pytest.raises(InvalidRecords, match=r"values that JSON can hold.*complex.*at \$\[1\]"):
            client.predict([{"x": 1}, {"x": 1j}])
        with pytest.raises(InvalidRecords, match="columns of different names"):
            client.predict(pd.DataFrame([[1, 2]], columns=["x", "x"]))
        with pytest.raises(TypeError, match="expected a DataFrame, a list of records or a record, got str"):
            client.predict("x")


def test_frames_without_rows_and_columns() -> None:
    with Script(ok).client() as client:
        empty = client.predict(pd.DataFrame({"x": []}))
        assert (len(empty), list(empty)) == (0, [])
        assert client.predict(pd.DataFrame(index=[4, 5])).index.tolist() == [4, 5]


def test_many_rows_are_sent_in_order_in_several_requests() -> None:
    script = Script(ok)
    progress: list[tuple[int, int]] = []
    with script.client(max_rows_per_request=10) as client:
        answers = client.predict([{"x": i} for i in range(25)], on_progress=lambda *p: progress.append(p))
    assert answers == [{"x": i} for i in range(25)]
    assert [len(msgspec.json.decode(request.content)) for request in script.requests] == [10, 10, 5]
    assert progress == [(10, 25), (20, 25), (25, 25)]
    assert len(set(script.header("x-request-id"))) == 3


def test_no_body_is_larger_than_a_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_BODY_BYTES", 21)
    script = Script(ok)
    with script.client() as client:  # [{"x":0},{"x":0}] has 17 bytes, a third record would make 25
        assert len(client.predict([{"x": 0}] * 5)) == 5
    assert [len(request.content) for request in script.requests] == [17, 17, 9]
    monkeypatch.setattr(records, "MAX_BODY_BYTES", 17)
    with script.client() as client:
        client.predict([{"x": 0}] * 2 + [{"x": "longer than all that"}])
    assert [len(request.content) for request in script.requests[3:]] == [17, 30]

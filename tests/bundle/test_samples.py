from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlead.bundle.samples import example_of, feature_of, read_sample, records_of, without_target
from fairlead.errors import SchemaError, SourceError

FRAME = pd.DataFrame({"x": [1.5, None, 3.0], "n": [1, 2, 3], "word": ["b", "a", None], "y": [0, 1, 0]})


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".json"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix == ".csv":
        FRAME.to_csv(path, index=False)
    elif suffix == ".parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_json(path, orient="records", lines=suffix == ".jsonl")

    found = read_sample(path, "y")

    assert list(found) == ["x", "n", "word"]
    assert records_of(found)[1:] == [{"x": None, "n": 2, "word": "a"}, {"x": 3.0, "n": 3, "word": None}]
    assert [feature_of(name, found[name]).type for name in found] == ["float", "int", "string"]


def test_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "empty.csv").write_text("a,b\n")
    (tmp_path / "data.xlsx").write_bytes(b"x")
    for name, message in {
        "missing.csv": "no such file",
        "broken.parquet": "cannot be read as parquet",
        "empty.csv": "has no rows",
        "data.xlsx": r"expected .csv, .parquet, .jsonl, .json, got .xlsx",
    }.items():
        with pytest.raises(SourceError, match=message):
            read_sample(tmp_path / name, None)


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(SourceError, match=r"data: no column 'z'; it has x, n, word, y"):
        without_target(FRAME, "z", "data")


COLUMNS: list[tuple[Any, str, bool]] = [
    (pd.Series([True, False]), "bool", False),
    (pd.Series([True, None], dtype="object"), "bool", True),
    (pd.Series([True, None], dtype="boolean"), "bool", True),
    (pd.Series([1, 2], dtype="uint8"), "int", False),
    (pd.Series([1, None], dtype="Int64"), "int", True),
    (pd.Series([1.0, np.nan]), "float", True),
    (pd.Series([1, 2.5], dtype="object"), "float", False),
    (pd.Series(["a", "b"], dtype="object"), "string", False),
    (pd.Series(["a", None], dtype="string"), "string", True),
    (pd.Series(["a", "b"], dtype="category"), "string", False),
    (pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])), "datetime", False),
    (pd.Series(pd.to_datetime(["2026-01-01", None], utc=True)), "datetime", True),
]


@pytest.mark.parametrize(("column", "kind", "nullable"), COLUMNS)
def test_types(column: Any, kind: str, nullable: bool) -> None:
    feature = feature_of("x", column)

    assert (feature.type, feature.nullable) == (kind, nullable)


def test_what_is_told_of_numbers_and_strings() -> None:
    number, word = feature_of("x", FRAME["x"]), feature_of("word", FRAME["word"])

    assert (number.minimum, number.maximum, number.categories) == (1.5, 3.0, None)
    assert (word.minimum, word.categories) == (None, ("a", "b"))


def test_text_has_no_categories() -> None:
    assert feature_of("id", pd.Series([f"id {n}" for n in range(1001)])).categories is None
    assert len(feature_of("id", pd.Series([f"id {n}" for n in range(1000)])).categories or ()) == 1000


@pytest.mark.parametrize("values", [[[1], [2]], ["a", 1], [1 + 2j, 2j]])
def test_other_values_are_refused(values: list[object]) -> None:
    with pytest.raises(SchemaError, match="x: expected one of bool, int, float, string, datetime, got"):
        feature_of("x", pd.Series(values, dtype="object"))


def test_records_are_plain() -> None:
    frame = pd.DataFrame(
        {
            "n": np.array([1, 2], dtype=np.int32),
            "f": np.array([1.5, np.nan], dtype=np.float32),
            "i": pd.Series([1, None], dtype="Int64"),
            "when": pd.to_datetime(["2026-01-02T03:04:05Z", None]),
        }
    )

    first, second = records_of(frame)

    assert [type(first[key]) for key in ("n", "f", "i")] == [int, float, int]
    assert first["when"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert second == {"n": 2, "f": None, "i": None, "when": None}


def test_an_example_goes_into_json() -> None:
    record = {"when": datetime(2026, 1, 2, tzinfo=UTC), "x": 1.5, "none": None}

    assert example_of(record) == {"when": "2026-01-02T00:00:00Z", "x": 1.5, "none": None}

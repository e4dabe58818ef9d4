from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from fairlead.bundle.build import BuildOptions, build
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.dashboard.building.data import observe
from fairlead.errors import DashboardError
from fairlead.predict.validate import Validator
from fairlead.schema import Schema


@pytest.fixture(scope="session")
def survival(survival_bundle: Path) -> Bundle:
    return open_bundle(survival_bundle)


@pytest.fixture(scope="session")
def pay(pay_bundle: Path) -> Bundle:
    return open_bundle(pay_bundle)


@pytest.fixture(scope="session")
def towns_frame() -> pd.DataFrame:
    """Give 90 rows of three classes that look like numbers, with a code that does so too, and nulls."""
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"code": random.choice(["007", "12", "3"], 90), "open": random.random(90) < 0.5})
    frame["town"] = ["01"] * 60 + ["2"] * 27 + ["3"] * 3
    frame.loc[:4, "code"] = None
    return frame


@pytest.fixture(scope="session")
def towns(bundle_of: Any, towns_frame: pd.DataFrame) -> Bundle:
    sample = towns_frame[["code", "open"]]
    model = Pipeline([("vectorize", DictVectorizer()), ("logistic", LogisticRegression())])
    records = [{key: value for key, value in row.items() if not pd.isna(value)} for row in sample.to_dict("records")]
    return open_bundle(bundle_of(model.fit(records, towns_frame["town"]), sample, "towns"))


@pytest.fixture(scope="session")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give a bundle of a class of the user's own, whose features are a datetime and an integer."""
    folder = tmp_path_factory.mktemp("visits")
    (folder / "visit.py").write_text("class Visit:\n    def predict(self, at, n):\n        return n * 2.0\n")
    schema = Schema.parse({"features": [{"name": "at", "type": "datetime"}, {"name": "n", "type": "int"}]})
    options = BuildOptions(schema=schema, code=folder / "visit.py")
    return open_bundle(build("visit:Visit", folder / "visits", options).path)


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.reset_index().to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".json"])
def test_every_format_gives_the_same_rows(
    suffix: str, survival: Bundle, passengers: pd.DataFrame, passengers_csv: Path, tmp_path: Path
) -> None:
    observed = observe(survival, write(passengers, tmp_path / f"rows{suffix}"), "survived", "name")

    assert observed.records == observe(survival, passengers_csv, "survived", "name").records
    assert not Validator(survival.manifest.schema).check(observed.records).rejections
    assert observed.records[0]["own_cabin"] is bool(passengers["own_cabin"].iloc[0])
    assert [record["deck"] for record in observed.records] == [
        None if pd.isna(deck) else deck for deck in passengers["deck"]
    ]
    assert observed.index == list(passengers.index)
    assert observed.y is not None
    assert observed.y.to_dict() == passengers["survived"].to_dict()
    assert (observed.target, observed.index_name, observed.labels, observed.n_read) == (
        "survived", "name", ("0", "1"), 200,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_text_that_looks_like_numbers_stays_text(
    suffix: str, towns: Bundle, towns_frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame = towns_frame.assign(id=[f"{n:04}" for n in range(90)])
    observed = observe(towns, write(frame, tmp_path / f"rows{suffix}"), "town", "id")

    assert [record["code"] for record in observed.records] == [
        None if pd.isna(code) else code for code in towns_frame["code"]
    ]
    assert observed.index[7] == "0007"
    assert observed.labels == ("01", "2", "3")
    assert observed.y is not None
    assert Counter(observed.y) == {0: 60, 1: 27, 2: 3}


def test_a_datetime_is_text_and_a_number_may_be_one(visits: Bundle, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("at,n,took\n2026-01-02T03:04:05+01:00,3,1.5\n2026-01-02,4,\n2026-01-03,5,2\n")
    observed = observe(visits, tmp_path / "rows.csv", "took", None)

    assert observed.records == [{"at": "2026-01-02T02:04:05Z", "n": 3}, {"at": "2026-01-03T00:00:00Z", "n": 5}]
    assert observed.index == ["0", "2"]
    assert observed.y is not None
    assert observed.y.tolist() == [1.5, 2.0]
    assert observed.warnings == (f"{tmp_path / 'rows.csv'}: 1 of 3 rows have no 'took' and are left out",)


def test_rows_without_a_target(pay: Bundle, passengers_csv: Path) -> None:
    observed = observe(pay, passengers_csv, None, None)

    assert observed.y is None
    assert observed.labels is None
    assert len(observed.records) == 200


def test_a_sample_is_of_each_class_in_proportion_and_always_the_same(
    towns: Bundle, towns_frame: pd.DataFrame, tmp_path: Path
) -> None:
    path = write(towns_frame, tmp_path / "rows.parquet")
    observed = observe(towns, path, "town", None, sample=10)

    assert observed.y is not None
    assert Counter(observed.y) == {0: 6, 1: 3, 2: 1}
    assert observed.index == sorted(observed.index, key=int)
    assert observed.index == observe(towns, path, "town", None, sample=10).index
    assert observed.index != observe(towns, path, "town", None, sample=10, seed=48).index
    assert observed.n_read == 90
    assert len(observe(towns, path, "town", None, sample=1000).records) == 90


def refused(bundle: Bundle, path: Path, target: str | None, index: str | None, sample: int | None = None) -> str:
    with pytest.raises(DashboardError) as error:
        observe(bundle, path, target, index, sample)
    return str(error.value)


def test_columns_that_are_not_there(
    survival: Bundle, passengers: pd.DataFrame, passengers_csv: Path, tmp_path: Path
) -> None:
    assert "no column 'Survived'; it has name, class, sex" in refused(survival, passengers_csv, "Survived", None)
    assert "no column 'id'" in refused(survival, passengers_csv, "survived", "id")
    lacking = write(passengers.drop(columns="fare"), tmp_path / "rows.csv")
    assert "fare: expected a column of float, got none" in refused(survival, lacking, "survived", None)
    assert "is a feature of survival" in refused(survival, passengers_csv, "fare", None)
    assert "expected a sample of 2 rows or more, got 1" in refused(survival, passengers_csv, None, None, 1)


def test_an_index_that_names_no_single_row(survival: Bundle, passengers: pd.DataFrame, tmp_path: Path) -> None:
    path = write(
        passengers.assign(id=["a", "a", "b", "b", "b", "c", "c", "d", "d", *range(191)]), tmp_path / "rows.csv"
    )
    assert "got 'b' 3 times, 'a' 2 times, 'c' 2 times: name another column" in refused(survival, path, None, "id")
    path = write(passengers.assign(id=[None, *range(199)]), tmp_path / "rows.parquet")
    assert "the index 'id' is empty in 1 rows, such as 0" in refused(survival, path, None, "id")


def test_targets_that_the_model_does_not_predict(
    survival: Bundle, pay: Bundle, towns: Bundle, towns_frame: pd.DataFrame, passengers: pd.DataFrame, tmp_path: Path
) -> None:
    path = write(
        passengers.assign(died="no", alive=1, none=np.nan, third=passengers["survived"] * 2, far=np.inf),
        tmp_path / "rows.csv",
    )

    assert "expected the model's classes, 0, 1: is it what" in refused(survival, path, "pay", None)
    assert "'died' holds 'no' in 200 of 200 rows" in refused(survival, path, "died", None)
    assert "'third' holds 2 in" in refused(survival, path, "third", None)
    assert "'alive' never is 0: expected rows of each class" in refused(survival, path, "alive", None)
    assert "'none' is empty in every row" in refused(survival, path, "none", None)
    assert "'died' holds 'no': expected numbers, for a regression" in refused(pay, path, "died", None)
    assert "'own_cabin'" not in refused(pay, path, "own_cabin", None)
    assert "an infinity" in refused(pay, path, "far", None)
    few = write(towns_frame[:60], tmp_path / "few.csv")
    assert "'town' never is '2', '3'" in refused(towns, few, "town", None)


def test_rows_that_the_schema_refuses(survival: Bundle, passengers: pd.DataFrame, tmp_path: Path) -> None:
    frame = passengers.astype({"fare": object, "own_cabin": object})
    frame.iloc[1, frame.columns.get_loc("fare")] = "dear"
    frame.iloc[2, frame.columns.get_loc("own_cabin")] = "perhaps"
    frame.iloc[[3, 5], frame.columns.get_loc("town")] = None
    told = refused(survival, write(frame, tmp_path / "rows.csv"), "survived", None)

    assert "the model's schema refuses 4 of 200 rows: " in told
    assert "fare: expected a number, got text that is not one, at $[1].fare; " in told
    assert "own_cabin: expected a boolean, got text that is not one, at $[2].own_cabin; " in told
    assert "town: expected a string, got null, at $[3].town; and 1 more: mend them" in told


def test_files_that_are_broken_or_being_written(
    survival: Bundle, passengers: pd.DataFrame, passengers_csv: Path, tmp_path: Path
) -> None:
    whole = passengers_csv.read_bytes()
    cut = tmp_path / "cut.csv"
    cut.write_bytes(whole[: whole.rindex(b",") - 3])
    assert "its last row has 8 of 10 fields: it is half-written" in refused(survival, cut, "survived", None)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(write(passengers, tmp_path / "whole.parquet").read_bytes()[:-100])
    assert "cannot be read as parquet, maybe half-written" in refused(survival, cut, "survived", None)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(write(passengers, tmp_path / "whole.jsonl").read_bytes()[:-100])
    assert "cannot be read as jsonl, maybe half-written" in refused(survival, cut, "survived", None)
    assert "no such file" in refused(survival, tmp_path / "none.csv", "survived", None)
    assert "expected .csv, .parquet, .jsonl, .json, got .xlsx" in refused(survival, tmp_path / "a.xlsx", None, None)
    (tmp_path / "empty.csv").touch()
    assert "cannot be read as csv" in refused(survival, tmp_path / "empty.csv", None, None)
    one = write(passengers[:1], tmp_path / "one.csv")
    assert "expected 2 rows or more to explain, got 1" in refused(survival, one, None, None)


def test_a_last_row_without_a_line_end_is_whole(survival: Bundle, passengers_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(passengers_csv.read_bytes().rstrip())

    assert len(observe(survival, path, "survived", "name").records) == 200

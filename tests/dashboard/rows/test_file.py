import concurrent.futures
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.dashboard.rows import RowsOptions, chunks, keys, lookup, open_rows, prepare
from fairlead.errors import DashboardError
from fairlead.schema import Schema

Made = Any
KINDS = (".csv", ".parquet", ".jsonl")


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame by its file's suffix, times as text where the format has none."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        times = frame.select_dtypes("datetimetz").columns
        frame = frame.assign(**{name: [time.isoformat() for time in frame[name]] for name in times})
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_found_by_its_index(
    kind: str, rides: pd.DataFrame, first: dict[str, Any], opened: Made, tmp_path: Path
) -> None:
    rows = opened(write(rides, tmp_path / f"rides{kind}"), index="ride_id", target="late")
    assert rows.record("007") == first
    assert rows.record("7") == {
        "distance": None, "passengers": 2, "zone": "2", "shared": False, "start": "2026-10-02T00:00:00Z",
    }  # fmt: skip
    assert rows.record("a,b") == {
        "distance": 3.0, "passengers": None, "zone": None, "shared": True, "start": "2026-10-02T00:00:00Z",
    }  # fmt: skip
    assert [type(value) for value in first.values()] == [type(value) for value in rows.record("007").values()]
    assert [rows.y(index) for index in ("007", "7", "a,b", "nobody")] == [0, 1, None, None]
    assert rows.exists("é")
    assert not any(map(rows.exists, ("07", "", "7.0", "\ud800", "a\0b")))
    assert rows.record("nobody") is None
    assert rows.indexes() == ["007", "7", "a,b", "é", "x"]
    rows.close()


@pytest.mark.parametrize(
    ("kind", "values", "outcomes"),
    [
        (".csv", ["1", "1.5", "", "007", "True"], [1, 1.5, None, "007", True]),
        (".csv", ["yes", "no", "null", "-1e3", "[1]"], ["yes", "no", None, -1000.0, "[1]"]),
        (".jsonl", ["1", 1, None, 1.5, True], ["1", 1, None, 1.5, True]),
        (".parquet", [1.0, 2.5, None, 3.0, 4.0], [1.0, 2.5, None, 3.0, 4.0]),
        (".parquet", ["007", "b", None, "c", "d"], ["007", "b", None, "c", "d"]),
        (".parquet", [Decimal("1.50"), Decimal(2), None, Decimal(3), Decimal(4)], [1.5, 2.0, None, 3.0, 4.0]),
        (".parquet", list(pd.to_datetime(["2026-10-01"] * 5).as_unit("ns")), ["2026-10-01 00:00:00"] * 5),
    ],
)
def test_what_was_observed_is_what_was_written(
    kind: str, values: list[Any], outcomes: list[Any], rides: pd.DataFrame, opened: Made, tmp_path: Path
) -> None:
    frame = rides.assign(late=pd.Series(values, dtype=object))
    rows = opened(write(frame, tmp_path / f"rides{kind}"), index="ride_id", target="late")
    found = [rows.y(index) for index in rides["ride_id"]]
    assert found == outcomes
    assert list(map(type, found)) == list(map(type, outcomes))
    rows.close()


def test_times_as_pandas_writes_them_are_read(
    rides: pd.DataFrame, first: dict[str, Any], opened: Made, tmp_path: Path
) -> None:
    rides.to_csv(tmp_path / "rides.csv", index=False)
    rows = opened(tmp_path / "rides.csv", index="ride_id")
    assert rows.record("007") == first
    rows.close()


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_features_do_as_well_and_what_has_a_default_may_lack(
    kind: str, rides: pd.DataFrame, first: dict[str, Any], opened: Made, tmp_path: Path
) -> None:
    frame = rides.rename(columns={"Distance (km)": "distance"}).drop(columns=["shared", "late"])
    rows = opened(write(frame, tmp_path / f"rides{kind}"), index="ride_id", target="late")
    assert rows.record("007") == first | {"shared": False}
    assert rows.y("007") is None
    rows.close()


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 20, -3], ["1", "20", "-3"]),
        ([1.0, 20.5, 1e300], ["1.0", "20.5", "1e+300"]),
        ([True, False], ["true", "false"]),
        (pd.Categorical(["b", "a"]), ["b", "a"]),
        (pd.to_datetime(["2026-10-01", "2026-10-02"]), ["2026-10-01T00:00:00", "2026-10-02T00:00:00"]),
        (
            pd.to_datetime(["2026-10-01", "2026-10-02"], utc=True).as_unit("ns") + pd.Timedelta(1, "ns"),
            ["2026-10-01T00:00:00.000000001Z", "2026-10-02T00:00:00.000000001Z"],
        ),
        ([Decimal("1.50"), Decimal("-2.00")], ["1.50", "-2.00"]),
        ([b"007", "\xe9".encode()], ["007", "\xe9"]),
    ],
)
def test_indexes_of_any_type_are_compared_as_text(
    values: Any, texts: list[str], rides: pd.DataFrame, opened: Made, tmp_path: Path
) -> None:
    frame = rides.head(len(texts)).assign(ride_id=values)
    rows = opened(write(frame, tmp_path / "rides.parquet"), index="ride_id")
    assert rows.indexes() == texts
    assert all(map(rows.exists, texts))
    assert not rows.exists("01")
    rows.close()


def test_a_feature_may_be_the_index(rides: pd.DataFrame, opened: Made, tmp_path: Path) -> None:
    rows = opened(write(rides.dropna(), tmp_path / "rides.parquet"), index="passengers")
    assert rows.record("1.0")["passengers"] == 1
    rows.close()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Give 5,000 rides in no order, in row groups that are no multiple of anything."""
    n = 5_000
    order = np.random.default_rng(0).permutation(n)
    start = pa.array([1_790_000_000_000_000] * n, pa.timestamp("us", tz="UTC"))
    table = pa.table(
        {"ride_id": order, "distance": order * 0.5, "passengers": order, "zone": ["1"] * n, "start": start}
    )
    pq.write_table(table, tmp_path / "many.parquet", row_group_size=777)
    return tmp_path / "many.parquet"


def test_each_of_many_rows_is_found_from_many_threads(many: Path, opened: Made) -> None:
    rows = opened(many, index="ride_id")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(rows.record, map(str, range(0, 5_000, 5))))
    assert [record["passengers"] for record in found] == list(range(0, 5_000, 5))
    assert rows.record("5000") is None
    assert rows.indexes() is None  # too many
    rows.close()


def test_chunks_of_any_length_make_the_same_file(
    many: Path, schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for size in (100, 5_000):
        monkeypatch.setattr("fairlead.dashboard.rows.chunks.CHUNK_ROWS", size)
        monkeypatch.setattr(keys, "_CHUNK", size)
        folder = tmp_path / str(size)
        prepare(RowsOptions(str(many), index="ride_id"), schema, folder, lambda what, share: None)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert set(made[0]) == {"rows.arrow", "digests.npy", "places.npy"}


def test_indexes_with_one_digest_are_told_apart(many: Path, opened: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    digests_of = keys.digests_of
    monkeypatch.setattr(keys, "digests_of", lambda indexes: digests_of(indexes) % np.uint64(7))
    monkeypatch.setattr(keys, "_CHUNK", 900)
    rows = opened(many, index="ride_id")
    assert [rows.record(str(index))["passengers"] for index in (0, 17, 4_999)] == [0, 17, 4_999]
    assert not rows.exists("5000")
    rows.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_stands_twice_is_refused(kind: str, rides: pd.DataFrame, opened: Made, tmp_path: Path) -> None:
    frame = pd.concat([rides, rides.head(4), rides.head(1)])
    with pytest.raises(DashboardError, match=r": 5 rows have a ride_id that an earlier row has, such as '") as caught:
        opened(write(frame, tmp_path / f"rides{kind}"), index="ride_id")
    named = str(caught.value).partition("such as ")[2].partition(": ")[0].split("', '")
    assert len(named) == 3
    assert {name.strip("'") for name in named} < {"007", "7", "a,b", "é"}


def test_an_index_without_meaning_is_refused_soon(many: Path, opened: Made) -> None:
    with pytest.raises(DashboardError, match=r"4,999 rows have a zone that an earlier row has, such as '1': expected"):
        opened(many, index="zone")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_fit_are_refused_and_counted(
    kind: str, rides: pd.DataFrame, opened: Made, tmp_path: Path
) -> None:
    frame = pd.concat([rides, rides.assign(ride_id=rides["ride_id"] + "2", passengers=1.5)], ignore_index=True)
    with pytest.raises(
        DashboardError, match=r"5 of 10 rows do not fit the model: passengers: expected an integer"
    ) as caught:
        opened(write(frame, tmp_path / f"rides{kind}"), index="ride_id")
    assert "at $[5].passengers" in str(caught.value)
    assert str(caught.value).count("at $[") == 3


def broken(tmp_path: Path, rides: pd.DataFrame, case: str) -> tuple[Path, str]:
    """Make a file that is wrong, and say what is told of it."""
    kind = {"json": ".jsonl", "half a json": ".jsonl", "half a parquet": ".parquet", "type": ".parquet"}.get(
        case, ".csv"
    )
    path = tmp_path / f"rides{kind}"
    if case == "missing":
        return path, "no such file"
    if case == "suffix":
        return tmp_path / "rides.txt", r"rides.txt: expected .csv, .parquet, .jsonl, got .txt"
    if case == "index":
        return write(rides.drop(columns="ride_id"), path), "no column 'ride_id' to look rows up by; it has Distance"
    if case == "feature":
        return write(
            rides.drop(columns=["start", "Distance (km)"]), path
        ), "got none for distance, start; it has ride_id"
    if case == "empty":
        return write(rides.head(0), path), "has no rows"
    if case == "no index":
        return write(rides.assign(ride_id=["1", "2", None, "3", "4"]), path), "row 3 has no ride_id"
    if case == "type":
        return write(rides.assign(shared="yes"), path), "its columns do not fit the model: shared: expected a column of"
    if case == "half a row":
        path.write_bytes(write(rides, path).read_bytes()[:-10])
        return path, "its last row has 6 of 8 fields: it is half-written, wait for the rest"
    if case == "json":
        path.write_text('{"ride_id": "1"}\n[]\n')
        return path, r"cannot be read as jsonl: line 2: Expected `object`, got `array`"
    whole = write(rides, path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if case.startswith("half") else b"ride_id,\xff\n" + whole)
    return path, f"cannot be read as {kind[1:]}: .*: have the file written again"


@pytest.mark.parametrize(
    "case",
    [
        "missing",
        "suffix",
        "index",
        "feature",
        "empty",
        "no index",
        "type",
        "json",
        "half a json",
        "half a parquet",
        "half a row",
        "utf8",
    ],
)
def test_a_file_that_is_wrong_is_told(case: str, rides: pd.DataFrame, opened: Made, tmp_path: Path) -> None:
    path, told = broken(tmp_path, rides, case)
    with pytest.raises(DashboardError, match=told):
        opened(path, index="ride_id")


def test_a_file_that_is_being_written_is_told(many: Path, opened: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = chunks._texts

    def written(column: pa.ChunkedArray) -> list[Any]:
        os.utime(many, (0, 0))
        return texts(column)

    monkeypatch.setattr(chunks, "_texts", written)
    with pytest.raises(DashboardError, match="changed while it was read"):
        opened(many, index="ride_id")


def test_a_file_needs_an_index_and_no_query(opened: Made) -> None:
    with pytest.raises(DashboardError, match=r"rides.csv: expected the column .*: give --index"):
        opened("rides.csv")
    with pytest.raises(DashboardError, match=r"rides.csv: got a query: give postgresql://"):
        opened("rides.csv", index="a", query="select 1")
    with pytest.raises(DashboardError, match=r"^s3://…: expected a file, postgresql://.* or module:function"):
        opened("s3://key:secret@rides.parquet", index="a")


def test_the_manifest_tells_what_is_needed_and_progress_is_told(
    rides: pd.DataFrame, schema: Schema, tmp_path: Path
) -> None:
    path = write(rides, tmp_path / "rides.csv")
    told: list[tuple[str, float]] = []
    options = RowsOptions(str(path), index="ride_id", target="late")
    part = prepare(options, schema, tmp_path / "rows", lambda *step: told.append(step))
    assert part == {
        "kind": "file", "source": str(path), "index": "ride_id", "target": "late", "n_rows": 5,
        "examples": ["007", "7", "a,b"],
    }  # fmt: skip
    assert told[-1] == ("rows of rides.csv", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)


def test_a_folder_that_cannot_be_written_is_told(rides: pd.DataFrame, schema: Schema, tmp_path: Path) -> None:
    options = RowsOptions(str(write(rides, tmp_path / "rides.csv")), index="ride_id")
    with pytest.raises(DashboardError, match=r"rows cannot be written: Not a directory"):
        prepare(options, schema, tmp_path / "rides.csv" / "rows", lambda what, share: None)


def test_a_broken_store_is_told(rides: pd.DataFrame, schema: Schema, tmp_path: Path) -> None:
    options = RowsOptions(str(write(rides, tmp_path / "rides.csv")), index="ride_id")
    folder = tmp_path / "rows"
    part = prepare(options, schema, folder, lambda what, share: None)
    other = Schema.parse({"features": [{"name": "distance", "type": "float"}]})
    with pytest.raises(
        DashboardError, match=r"are broken: expected the columns of the dashboard's model.*build it again"
    ):
        open_rows(folder, part, other, {})
    (folder / "rows.arrow").write_bytes(b"")
    with pytest.raises(DashboardError, match=r"are broken: .*: build it again"):
        open_rows(folder, part, schema, {})
    (folder / "digests.npy").unlink()
    with pytest.raises(DashboardError, match=r"are broken: .*: build it again"):
        open_rows(folder, part, schema, {})


def test_forked_processes_read_on_by_themselves(many: Path, opened: Made) -> None:
    rows = opened(many, index="ride_id")
    assert rows.exists("17")
    child = os.fork()
    if not child:
        os._exit(0 if rows.record("18")["passengers"] == 18 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert rows.record("19")["passengers"] == 19
    rows.close()


def test_what_is_listed_is_bounded(
    rides: pd.DataFrame, opened: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MAX_LISTED", 4)
    rows = opened(write(rides, tmp_path / "rides.csv"), index="ride_id")
    assert rows.indexes() is None
    rows.close()

"""Runs from S3 to S3, and from a database, through the job."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch.job import ScoreOptions, score
from fairlead.errors import InputError

HOMES = pd.DataFrame({"id": ["a", "b", "c"], "size": [80.0, 120.5, None], "rooms": [3, 4, 2], "town": ["Delft"] * 3})


@pytest.fixture
def bucket(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a client, with the environment that leads fairlead to the same server."""
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    s3_server.client.create_bucket(Bucket="homes")
    return s3_server.client


def objects(client: Any) -> dict[str, bytes]:
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="homes").get("Contents", [])]
    return {key: client.get_object(Bucket="homes", Key=key)["Body"].read() for key in keys}


def test_files_go_from_s3_to_s3(bucket: Any, compiled_bundle: Path) -> None:
    for month in ("09", "10"):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(HOMES, preserve_index=False), file)
        bucket.put_object(Bucket="homes", Key=f"in/2026/{month}.parquet", Body=file.getvalue())
    bucket.put_object(Bucket="homes", Key="in/2026/11.csv", Body=b"id,size,rooms,town\nd,1,x,Delft\ne,1,2,Delft\n")
    where = ("s3://homes/in/", "s3://homes/out/")
    report = score(compiled_bundle, *where)
    assert [(file.rows_out, file.rejects) for file in report.files] == [(3, 0), (3, 0), (1, 1)]
    found = objects(bucket)
    names = ("2026/09.parquet", "2026/10.parquet", "2026/11.csv")
    assert {key for key in found if key.startswith("out/")} == {
        *(f"out/{name}" for name in names),
        *(f"out/_journal/{name}.json" for name in names),
        "out/_rejects/2026/11.csv.jsonl",
        "out/_SUCCESS",
    }
    assert pq.read_table(io.BytesIO(found["out/2026/10.parquet"]))["id"].to_pylist() == ["a", "b", "c"]
    assert json.loads(found["out/_rejects/2026/11.csv.jsonl"])["row"] == 0
    again = score(compiled_bundle, *where, ScoreOptions(resume=True))
    assert all(file.skipped for file in again.files)
    bucket.put_object(Bucket="homes", Key="in/2026/10.parquet", Body=found["in/2026/09.parquet"] + b"")
    bucket.put_object(Bucket="homes", Key="in/2026/11.csv", Body=b"id,size,rooms,town\nf,1,2,Delft\n")
    changed = score(compiled_bundle, *where, ScoreOptions(resume=True))
    assert [Path(file.input).name for file in changed.files if not file.skipped] == ["11.csv"]
    assert "out/_rejects/2026/11.csv.jsonl" not in objects(bucket)
    with pytest.raises(InputError, match="s3://homes/nothing/"):
        score(compiled_bundle, "s3://homes/nothing/", "s3://homes/out/")


def test_what_a_query_gives_is_scored(postgres_server: Any, compiled_bundle: Path, tmp_path: Path) -> None:
    query = (
        "select 'h' || n as id, 80.5::numeric as size, n % 5 as rooms, 'Delft' as town from generate_series(1, 40000) n"
    )
    output = tmp_path / "out.parquet"
    for _ in range(2):
        report = score(
            compiled_bundle, postgres_server.uri, str(output), ScoreOptions(query=query, keep=("id",), resume=True)
        )
        assert (report.rows_out, report.files[0].skipped) == (40_000, False)
    assert pq.read_table(output).column_names[0] == "id"
    assert "@" not in (tmp_path / "_journal.out.parquet.json").read_text()

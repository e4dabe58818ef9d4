"""Runs over real files, through every kind of bundle and format."""

from __future__ import annotations

import io
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch import job
from fairlead.batch.formats.form import CHUNK_ROWS
from fairlead.batch.job import ScoreOptions, score
from fairlead.batch.report import Silent
from fairlead.bundle.read import open_bundle
from fairlead.errors import InputError, ModelFailed, OutputError, TooManyRejects
from fairlead.predict.predictor import load
from homes import homes_frame


def write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".parquet" in path.name:
        frame.to_parquet(path, index=False)
        return
    text = frame.to_csv(index=False) if ".csv" in path.name else frame.to_json(orient="records", lines=True)
    with pa.output_stream(path) as file:  # compresses as the suffix says
        file.write(text.encode())


def read(path: Path) -> pd.DataFrame:
    if ".parquet" in path.name:
        return pd.read_parquet(path)
    with pa.input_stream(path) as file:
        text = io.BytesIO(file.read())
    if ".csv" in path.name:
        return pd.read_csv(text, dtype={"model_version": str})
    return pd.read_json(text, lines=True, dtype={"model_version": str})


def run(bundle: Path, input: Path | str, output: Path | str, **options: Any) -> Any:
    return score(bundle, str(input), str(output), ScoreOptions(**options))


def entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Give a directory with one file of each format."""
    for name in ("a.parquet", "b.csv", "c.jsonl", "more/d.csv.gz", "more/e.jsonl.zst"):
        write(homes_frame(500), tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.mark.parametrize("bundle", ["compiled_bundle", "native_bundle", "prepared_bundle", "frame_prepared_bundle"])
def test_every_format_gives_the_predictors_own_answers(
    bundle: str, files: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(bundle)
    frame = homes_frame(500)
    wanted = pd.DataFrame(load(path).predict(frame))
    report = run(path, files, tmp_path / "out", workers=2)
    assert (report.rows_in, report.rows_out, report.rejects) == (2500, 2500, 0)
    for file in report.files:
        found = read(Path(file.output))
        assert found["id"].tolist() == frame["id"].tolist()
        assert set(found["model_version"]) == {report.version}
        for name in wanted:
            if name == "probabilities" and ".csv" in file.output:
                parts = pd.DataFrame(wanted[name].tolist())
                np.testing.assert_allclose(found[[f"probabilities.{label}" for label in parts]], parts, atol=1e-12)
            elif name == "probabilities":
                np.testing.assert_allclose(
                    pd.DataFrame(found[name].tolist()), pd.DataFrame(wanted[name].tolist()), atol=1e-12
                )
            elif pd.api.types.is_float_dtype(wanted[name]):
                np.testing.assert_allclose(found[name], wanted[name], atol=1e-12)
            else:
                assert found[name].tolist() == wanted[name].tolist()


@pytest.mark.parametrize("to", ["parquet", "csv", "jsonl"])
def test_every_format_becomes_every_other(to: Any, compiled_bundle: Path, files: Path, tmp_path: Path) -> None:
    report = run(compiled_bundle, files, tmp_path / "out", format=to, keep=("id", "rooms"))
    suffixes = {"".join(Path(file.output).suffixes) for file in report.files}
    assert suffixes == ({".parquet"} if to == "parquet" else {f".{to}", f".{to}.gz", f".{to}.zst"})
    frames = [read(Path(file.output)) for file in report.files]
    assert all(list(frame.columns[:2]) == ["id", "rooms"] for frame in frames)
    assert all(frame["rooms"].tolist() == homes_frame(500)["rooms"].tolist() for frame in frames)
    assert all(frame["p"].tolist() == pytest.approx(frames[0]["p"].tolist(), abs=1e-12) for frame in frames)


def test_what_stands_in_a_directory_at_the_end(compiled_bundle: Path, files: Path, tmp_path: Path) -> None:
    bad = homes_frame(10)
    bad["rooms"] = bad["rooms"].astype(float)
    bad.loc[[2, 7], "rooms"] = [np.nan, 2.5]
    write(bad, files / "f.parquet")
    report = run(compiled_bundle, files, tmp_path / "out")
    outputs = {"a.parquet", "b.csv", "c.jsonl", "more/d.csv.gz", "more/e.jsonl.zst", "f.parquet"}
    sides = {f"_journal/{name}.json" for name in outputs} | {"_rejects/f.parquet.jsonl", "_SUCCESS"}
    assert entries(tmp_path / "out") == outputs | sides
    told = [json.loads(line) for line in (tmp_path / "out/_rejects/f.parquet.jsonl").read_text().splitlines()]
    assert told == [
        {"row": 2, "errors": [{"path": "$.rooms", "expected": "an integer", "got": "null"}]},
        {"row": 7, "errors": [{"path": "$.rooms", "expected": "an integer", "got": "a number"}]},
    ]
    assert [(file.rows_in, file.rows_out, file.rejects) for file in report.files if file.rejects] == [(10, 8, 2)]
    assert read(tmp_path / "out/f.parquet")["id"].tolist() == [f"h{i}" for i in (0, 1, 3, 4, 5, 6, 8, 9)]
    entry = json.loads((tmp_path / "out/_journal/f.parquet.json").read_text())
    assert (entry["rows_in"], entry["rows_out"], entry["rejects"]) == (10, 8, 2)
    assert (entry["input"], entry["digest"]) == (str(files / "f.parquet"), report.digest)
    assert json.loads((tmp_path / "out/_SUCCESS").read_text())["files"] == 6


def test_rejects_of_later_chunks_have_their_numbers(compiled_bundle: Path, tmp_path: Path) -> None:
    frame = homes_frame(2 * CHUNK_ROWS + 10).astype({"rooms": float})
    places = [0, CHUNK_ROWS - 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 9]
    frame.loc[places, "rooms"] = np.nan
    write(frame, tmp_path / "in.parquet")
    for resume in (False, True):
        report = run(compiled_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", resume=resume)
        assert report.files[0].skipped is resume
        assert report.files[0].rejects_file == str(tmp_path / "_rejects.out.parquet.jsonl")
    lines = (tmp_path / "_rejects.out.parquet.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == places
    assert read(tmp_path / "out.parquet")["id"].tolist() == frame.drop(index=places)["id"].tolist()
    # A run without rejects takes away what an earlier one told.
    write(homes_frame(10), tmp_path / "in.parquet")
    run(compiled_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "_rejects.out.parquet.jsonl").exists()


def test_an_empty_file_gives_an_empty_file_with_the_same_columns(
    compiled_bundle: Path, prepared_bundle: Path, tmp_path: Path
) -> None:
    for bundle in (compiled_bundle, prepared_bundle):
        for name in ("full.parquet", "none.parquet", "full.csv", "none.csv"):
            write(homes_frame(3 if "full" in name else 0), tmp_path / "in" / name)
            run(bundle, tmp_path / "in" / name, tmp_path / "out" / name)
        full, none = (pq.read_schema(tmp_path / "out" / f"{name}.parquet") for name in ("full", "none"))
        assert full.names == none.names
        assert full.field("model_version").type == none.field("model_version").type == pa.string()
        header, line = ((tmp_path / "out" / f"{name}.csv").read_text().splitlines()[0] for name in ("full", "none"))
        assert header == line
    (tmp_path / "in/none.jsonl").write_text("")
    assert run(compiled_bundle, tmp_path / "in/none.jsonl", tmp_path / "out/none.jsonl").rows_in == 0
    assert (tmp_path / "out/none.jsonl").read_bytes() == b""


def test_the_same_bytes_whoever_scores(compiled_bundle: Path, native_bundle: Path, tmp_path: Path) -> None:
    frame = homes_frame(3 * CHUNK_ROWS).astype({"rooms": float})
    frame.loc[::1000, "rooms"] = np.nan
    write(frame, tmp_path / "in.parquet")
    write(frame.head(20_000), tmp_path / "in.csv")
    for bundle, name in ((compiled_bundle, "in.parquet"), (native_bundle, "in.csv")):
        found = set()
        for workers in (1, 3):
            run(bundle, tmp_path / name, tmp_path / "out" / name, workers=workers)
            found.add(tuple((tmp_path / "out" / part).read_bytes() for part in (name, f"_rejects.{name}.jsonl")))
        assert len(found) == 1


def test_resume_skips_what_is_done_and_nothing_else(
    compiled_bundle: Path, native_bundle: Path, files: Path, tmp_path: Path
) -> None:
    def skipped(bundle: Path = compiled_bundle, **options: Any) -> list[str]:
        report = run(bundle, files, tmp_path / "out", resume=True, **options)
        return sorted(Path(file.output).name for file in report.files if file.skipped)

    everything = ["a.parquet", "b.csv", "c.jsonl", "d.csv.gz", "e.jsonl.zst"]
    assert skipped() == []
    assert skipped() == everything
    write(homes_frame(500, seed=6), files / "a.parquet")
    (tmp_path / "out/b.csv").write_text("something else")
    (tmp_path / "out/c.jsonl").unlink()
    (tmp_path / "out/_journal/more/d.csv.gz.json").write_text('{"input": "half')
    assert skipped() == ["e.jsonl.zst"]
    assert skipped(keep=("id",)) == []
    assert skipped(native_bundle, keep=("id",)) == []
    assert skipped(native_bundle, keep=("id",)) == everything
    assert run(native_bundle, files, tmp_path / "out", keep=("id",)).files[0].skipped is False


def test_success_is_told_last_and_only_then(compiled_bundle: Path, files: Path, tmp_path: Path) -> None:
    run(compiled_bundle, files, tmp_path / "out")
    assert (tmp_path / "out/_SUCCESS").exists()
    write(homes_frame(5).drop(columns="rooms"), files / "c.jsonl")
    (files / "b.csv").write_text("id,size\nh1,3\n")
    with pytest.raises(InputError, match=r"b.csv: .*rooms"):
        run(compiled_bundle, files, tmp_path / "out")
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_templates_are_filled_by_dates(compiled_bundle: Path, tmp_path: Path) -> None:
    for month in (9, 10):
        write(homes_frame(month), tmp_path / f"in/2026/{month:02d}.parquet")
    report = run(
        compiled_bundle,
        tmp_path / "in/{year:04d}/{month:02d}.parquet",
        tmp_path / "out/{year:04d}-{month:02d}.csv",
        dates=(datetime(2026, 9, 1), datetime(2026, 10, 1)),
    )
    assert [file.rows_out for file in report.files] == [9, 10]
    assert (tmp_path / "out/_SUCCESS").exists()
    assert len(read(tmp_path / "out/2026-10.csv")) == 10


def test_too_many_rejects_end_the_run(compiled_bundle: Path, tmp_path: Path) -> None:
    frame = homes_frame(100).astype({"rooms": float})
    frame.loc[10:15, "rooms"] = np.nan
    write(frame, tmp_path / "in/a.parquet")
    write(frame, tmp_path / "in/b.parquet")
    with pytest.raises(TooManyRejects, match=r"b.parquet: more than 4 rows .* last of them row 14: rooms: "):
        run(compiled_bundle, tmp_path / "in", tmp_path / "out", max_rejects=10)
    # What was done before stays, and nothing is half done.
    assert entries(tmp_path / "out") == {"a.parquet", "_journal/a.parquet.json", "_rejects/a.parquet.jsonl"}
    assert run(compiled_bundle, tmp_path / "in", tmp_path / "out", max_rejects=12, resume=True).rejects == 12


def test_a_column_named_like_an_output_is_not_lost(compiled_bundle: Path, tmp_path: Path) -> None:
    write(homes_frame(5).assign(p=1.0), tmp_path / "in.parquet")
    write(homes_frame(5).assign(model_version=1.0), tmp_path / "in.jsonl")
    with pytest.raises(InputError, match=r"in.parquet: the column p is there, and an output too: .*--keep"):
        run(compiled_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet")
    with pytest.raises(InputError, match=r"in.jsonl: the column model_version is there"):
        run(compiled_bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert entries(tmp_path) == {"in.parquet", "in.jsonl"}
    run(compiled_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", keep=("id",))
    run(compiled_bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl", keep=("id",))


def test_a_model_that_raises_ends_the_run(frame_prepared_bundle: Path, tmp_path: Path) -> None:
    write(homes_frame(100).assign(area=13.0), tmp_path / "in.parquet")
    with pytest.raises(ModelFailed, match="prepare_frame raised KeyError"):
        run(frame_prepared_bundle, tmp_path / "in.parquet", tmp_path / "out/out.parquet")
    assert entries(tmp_path / "out") == set()


def test_a_function_scores_files(function_bundle: Path, tmp_path: Path) -> None:
    write(homes_frame(5)[["size", "rooms"]], tmp_path / "in.parquet")
    for name in ("out.parquet", "out.jsonl", "out.csv"):
        run(function_bundle, tmp_path / "in.parquet", tmp_path / name, keep=("rooms",))
    advice = read(tmp_path / "out.jsonl")["prediction"].tolist()
    assert [json.loads(text) for text in read(tmp_path / "out.parquet")["prediction"]] == [
        json.loads(one) if isinstance(one, str) else one for one in advice
    ]


def test_an_input_that_changes_while_it_is_read_is_not_taken(compiled_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    write(homes_frame(200_000), source)

    class Touches(Silent):
        def began(self, input: str, output: str, n_rows: int | None) -> None:
            os.utime(source, ns=(1, 1))

    with pytest.raises(InputError, match="changed while"):
        score(compiled_bundle, str(source), str(tmp_path / "out.parquet"), progress=Touches())
    assert entries(tmp_path) == {"in.parquet"}


def test_two_runs_do_not_write_one_file(compiled_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_TELL_EVERY_S", 0.0)
    write(homes_frame(10), tmp_path / "in.parquet")
    refused: list[str] = []

    class Again(Silent):
        """Begins the same run while the output is being written."""

        def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
            with pytest.raises(OutputError, match="another run is writing") as caught:
                run(compiled_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet")
            refused.append(str(caught.value))

    score(compiled_bundle, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), progress=Again())
    assert len(refused) == 1
    assert len(read(tmp_path / "out.parquet")) == 10


def test_progress_is_told(compiled_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_TELL_EVERY_S", 0.0)
    write(homes_frame(3 * CHUNK_ROWS), tmp_path / "in.parquet")
    told: list[Any] = []

    class Told:
        def planned(self, n_files: int) -> None:
            told.append(n_files)

        def began(self, input: str, output: str, n_rows: int | None) -> None:
            told.append((Path(input).name, Path(output).name, n_rows))

        def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
            told.append((rows_in, rejects, share))

        def finished(self, file: Any) -> None:
            told.append(file)

    report = score(compiled_bundle, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), progress=Told())
    rows = [(i * CHUNK_ROWS, 0, i / 3) for i in (1, 2, 3)]
    assert told == [1, ("in.parquet", "out.parquet", 3 * CHUNK_ROWS), *rows, report.files[0]]
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report
    assert (report.name, report.digest) == ("homes", open_bundle(compiled_bundle).digest)

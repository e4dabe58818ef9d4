"""`fairlead score` as a process: what it prints, how it ends, and what is left when it is ended."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.batch.progress import Status
from fairlead.cli import main
from homes import homes_frame
from load import descendants, eventually

SCORE = [sys.executable, "-m", "fairlead", "score"]


def score(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SCORE, *map(str, arguments)], capture_output=True, text=True, timeout=120, **how)


@contextmanager
def scoring(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [*SCORE, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "_journal" not in path.parts and path.suffix != ".partial"
    }


def wait_for_another_file(folder: Path, process: subprocess.Popen[str]) -> None:
    before = set(folder.iterdir())
    eventually(lambda: process.poll() is not None or set(folder.iterdir()) - before, 60)


def test_a_run_is_told(compiled_bundle: Path, tmp_path: Path) -> None:
    frame = homes_frame(2000).astype({"rooms": float})
    frame.loc[7, "rooms"] = np.nan
    frame.to_parquet(tmp_path / "in.parquet")
    done = score(compiled_bundle, "in.parquet", "out.csv", "--keep", "id", cwd=tmp_path)
    assert done.returncode == 0
    first, last = done.stdout.splitlines()
    assert first.startswith("out.csv: 1,999 rows of in.parquet, 1 rejects in _rejects.out.csv.jsonl (")
    assert last.startswith("2,000 rows in = 1,999 rows out + 1 rejects, with homes ")
    assert "fairlead.batch: in.parquet: 2,000 rows in" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "_SUCCESS.out.csv", "_journal.out.csv.json", "_rejects.out.csv.jsonl", "in.parquet", "out.csv",
    ]  # fmt: skip
    again = score(compiled_bundle, "in.parquet", "out.csv", "--keep", "id", "--resume", "--json", cwd=tmp_path)
    told = json.loads(again.stdout)
    assert (told["rows_in"], told["rows_out"], told["rejects"]) == (2000, 1999, 1)
    assert (told["name"], told["files"][0]["skipped"]) == ("homes", True)
    assert "in.parquet: done before, as out.csv" in again.stderr


def test_months_are_backfilled(
    compiled_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for month in ("09", "10", "11"):
        (tmp_path / "in/2026").mkdir(parents=True, exist_ok=True)
        homes_frame(int(month)).to_json(tmp_path / f"in/2026/{month}.jsonl", orient="records", lines=True)
    where = ("in/{year:04d}/{month:02d}.jsonl", "out/{year:04d}/{month:02d}.parquet")
    done = score(compiled_bundle, *where, "--backfill", "2026-09..2026-11", "--json", cwd=tmp_path)
    assert [file["rows_out"] for file in json.loads(done.stdout)["files"]] == [9, 10, 11]
    one = score(compiled_bundle, *where, "--date", "2026-10", "--resume", "--json", cwd=tmp_path)
    assert [file["skipped"] for file in json.loads(one.stdout)["files"]] == [True]
    for flags, told in (
        (["--date", "2026"], "INPUT has {month}, and 2026 is a year"),
        (["--date", "october"], "october"),
        (["--backfill", "2026-11..2026-09"], "2026-11..2026-09"),
        (["--date", "2026-10", "--backfill", "2026-09..2026-11"], "expected one of them"),
    ):
        monkeypatch.setattr(sys, "argv", ["fairlead", "score", str(compiled_bundle), *where, *flags])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
    for flags, told in (
        ([], "INPUT has {year} and no date was given"),
        (["--date", "2026-12"], "in/2026/12.jsonl"),
    ):
        wrong = score(compiled_bundle, *where, *flags, cwd=tmp_path)
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
        assert told in wrong.stderr


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PAR1 cut in the middle", "in.parquet: expected a Parquet file"),
        (b"", "in.parquet: expected a Parquet file"),
    ],
)
def test_what_is_no_input_is_told_and_leaves_nothing(
    data: bytes, told: str, compiled_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.parquet").write_bytes(data)
    done = score(compiled_bundle, "in.parquet", "out/out.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"fairlead: {told}")
    assert not (tmp_path / "out/out.parquet").exists()


def test_no_space_is_told_and_leaves_nothing(compiled_bundle: Path, tmp_path: Path) -> None:
    homes_frame(300_000).to_parquet(tmp_path / "in.parquet")
    limit = ["prlimit", "--fsize=1000000"]
    done = subprocess.run(
        [*limit, *SCORE, compiled_bundle, "in.parquet", "out/out.parquet"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "out/out.parquet: no space left" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "out").iterdir()) == []


def test_the_status_file_tells_how_it_ended(compiled_bundle: Path, tmp_path: Path) -> None:
    homes_frame(10).to_parquet(tmp_path / "in.parquet")
    score(compiled_bundle, "in.parquet", "out.parquet", "--status-file", "status.json", cwd=tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert set(status) == set(Status.__struct_fields__)
    assert (status["state"], status["rows_out"], status["files_done"], status["share"]) == ("done", 10, 1, 1.0)
    assert status["report"]["files"][0]["output"] == "out.parquet"
    homes_frame(10).drop(columns="rooms").to_parquet(tmp_path / "in.parquet")
    failed = score(compiled_bundle, "in.parquet", "out.parquet", "--status-file", "status.json", cwd=tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (failed.returncode, status["state"], status["report"]) == (2, "failed", None)
    assert "rooms: expected a column of int, got none" in status["error"]


def test_on_a_terminal_there_is_a_bar(compiled_bundle: Path, tmp_path: Path) -> None:
    homes_frame(300_000).to_parquet(tmp_path / "in.parquet")
    main, other = os.openpty()
    command = [*SCORE, str(compiled_bundle), "in.parquet", "out.parquet"]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=other, env=environ)
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # nobody has the terminal any more
            break
        shown += part
    assert process.wait(60) == 0
    os.close(main)
    assert b"in.parquet" in shown
    assert b"rows," in shown
    assert b"fairlead.batch:" not in shown


@pytest.mark.parametrize(
    ("bundle", "number", "code"),
    [("compiled_bundle", signal.SIGTERM, 143), ("prepared_bundle", signal.SIGINT, 130)],
)
def test_a_run_that_is_ended_leaves_nothing(
    bundle: str, number: int, code: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    homes_frame(2_000_000).assign(area=50.0).to_parquet(tmp_path / "in.parquet")
    with scoring(request.getfixturevalue(bundle), tmp_path / "in.parquet", tmp_path / "out/out.parquet") as process:
        partial = tmp_path / "out/.out.parquet.partial"
        eventually(lambda: partial.exists() and partial.stat().st_size > 0, 60)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, "Exception" in said) == (code, False), said
    assert list((tmp_path / "out").iterdir()) == []


def test_a_chunk_that_takes_long_holds_up_no_end(prepared_bundle: Path, tmp_path: Path) -> None:
    homes_frame(10).assign(area=17.0).to_parquet(tmp_path / "in.parquet")
    with scoring(prepared_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", "--workers", 1) as process:
        eventually((tmp_path / ".out.parquet.partial").exists, 60)
        time.sleep(1)
        start = time.monotonic()
        process.terminate()
        assert process.wait(60) == 143
    assert time.monotonic() - start < 20
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_processes_end_with_the_one_that_is_killed(prepared_bundle: Path, tmp_path: Path) -> None:
    homes_frame(1_000_000).assign(area=50.0).to_parquet(tmp_path / "in.parquet")
    with scoring(prepared_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", "--workers", 2) as process:
        eventually(lambda: len(descendants(process.pid)) >= 2, 60)
        children = descendants(process.pid)
        time.sleep(0.5)
        process.kill()
        process.wait(10)
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20)


def test_a_process_that_is_killed_is_told(prepared_bundle: Path, tmp_path: Path) -> None:
    homes_frame(1_000_000).assign(area=50.0).to_parquet(tmp_path / "in.parquet")
    with scoring(prepared_bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", "--workers", 2) as process:
        partial = tmp_path / ".out.parquet.partial"
        eventually(lambda: partial.exists() and partial.stat().st_size > 0, 60)
        pool = [pid for pid in descendants(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(pool[0], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a process that scored was killed" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_killed_at_twenty_moments_it_gives_the_same_bytes(compiled_bundle: Path, tmp_path: Path) -> None:
    for i in range(4):
        frame = homes_frame(60_000, seed=i).astype({"rooms": float})
        frame.loc[::5000, "rooms"] = np.nan
        frame.to_parquet(tmp_path / f"{i}.parquet")
        frame.head(20_000).to_csv(tmp_path / f"{i}.csv", index=False)
    flags = ("--resume", "--workers", 2)
    assert score(compiled_bundle, f"{tmp_path}/?.*", tmp_path / "once/", *flags).returncode == 0
    wanted = digests(tmp_path / "once")
    assert len(wanted) == 17
    again = tmp_path / "again"
    again.mkdir()
    rng = random.Random(4)
    in_the_middle = 0
    for _ in range(20):
        if "_SUCCESS" in digests(again):
            shutil.rmtree(again)
            again.mkdir()
        with scoring(compiled_bundle, f"{tmp_path}/?.*", f"{again}/", *flags) as process:
            wait_for_another_file(again, process)
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
        in_the_middle += any(again.rglob(".*.partial"))
    assert in_the_middle > 3
    assert score(compiled_bundle, f"{tmp_path}/?.*", f"{again}/", *flags).returncode == 0
    assert digests(again) == wanted

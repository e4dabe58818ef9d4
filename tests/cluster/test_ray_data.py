"""Ray Data on a real Ray of this machine: what it writes is, byte for byte, what the cores of this machine write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch.job import ScoreOptions, score
from fairlead.batch.report import Silent
from fairlead.bundle.read import open_bundle
from fairlead.cluster.ray_data import RayScorers
from fairlead.cluster.ray_worker import Part, counted
from fairlead.cluster.shipped import ShippedBundle, pack
from fairlead.errors import BundleError, ConfigError, InputError, ModelFailed, TooManyRejects

pytest.importorskip("ray", reason="needs the extra ray")
# Ray's own, when it makes and copies its settings.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*:DeprecationWarning:ray\.data\.context")

# Two pieces of a Parquet file: each ends with a row group, after 524,288 rows or more.
GROUP_ROWS = 262_144
BIG_ROWS = 2 * GROUP_ROWS + 40_000


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Have a Ray of our own run, as a run without an address does; the runs in it share it."""
    import ray

    environ, on_sigterm = dict(os.environ), signal.getsignal(signal.SIGTERM)
    try:
        with RayScorers(None):
            assert signal.getsignal(signal.SIGTERM) is on_sigterm
            yield
        assert not ray.is_initialized()
    finally:
        os.environ.clear()
        os.environ |= environ


def homes_frame(n_rows: int, seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(n_rows),
            "size": rng.uniform(20, 200, n_rows).round(1),
            "rooms": rng.integers(1, 6, n_rows).astype(float),
            "town": rng.choice(["Delft", "Gouda", "Leiden", "Assen"], n_rows),
            "area": rng.uniform(20, 200, n_rows).round(1),
        }
    )
    frame.loc[frame.index % 1000 == 7, "rooms"] = 2.5  # is refused
    return frame


def write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=GROUP_ROWS)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)


def on_ray(bundle: Path, input: Path, output: Path, progress: Any = None, **options: Any) -> Any:
    with RayScorers(None) as cluster:
        return score(bundle, str(input), str(output), ScoreOptions(**options), progress, cluster)


def contents(folder: Path) -> dict[str, bytes]:
    """Give all files but the journal, which tells how long it took."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("_journal")}


def check_same(bundle: Path, files: Path, tmp_path: Path, **options: Any) -> None:
    local = score(bundle, str(files), f"{tmp_path}/local", ScoreOptions(workers=2, **options))
    ray = on_ray(bundle, files, tmp_path / "ray", **options)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert (ray.rows_in, ray.rows_out, ray.rejects) == (local.rows_in, local.rows_out, local.rejects)


def workers() -> list[int]:
    """Find the processes of actors of our own Ray, whose raylet is a child of this process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            stat, command = (entry / "stat").read_text(), (entry / "cmdline").read_text()
        except OSError:
            continue
        parents[int(stat.split()[0])] = int(stat.rpartition(")")[2].split()[1]), command
    ours = {pid for pid, (parent, command) in parents.items() if parent == os.getpid() and "raylet" in command}
    return [pid for pid, (parent, command) in parents.items() if parent in ours and "MapWorker" in command]


class Killer(Silent):
    """Kills whoever scores, as soon as the first rows are there."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        if not self.killed:
            self.killed = workers()
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "big.parquet"
    write(homes_frame(BIG_ROWS), path)
    return path


def test_pieces_of_a_file_are_put_together(ray_cluster: None, compiled_bundle: Path, big: Path, tmp_path: Path) -> None:
    check_same(compiled_bundle, big.parent, tmp_path, keep=("id", "town"))


def test_several_files_of_every_format(ray_cluster: None, compiled_bundle: Path, tmp_path: Path) -> None:
    for place, name in enumerate(("a.parquet", "b.csv", "more/c.jsonl")):
        write(homes_frame(3000, seed=place), tmp_path / "in" / name)
    write(homes_frame(0), tmp_path / "in/empty.parquet")
    check_same(compiled_bundle, tmp_path / "in", tmp_path)


@pytest.mark.parametrize("bundle", ["prepared_bundle", "function_bundle"])
def test_code_of_the_user(ray_cluster: None, bundle: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    frame = homes_frame(300).astype({"area": float})
    if bundle == "function_bundle":
        frame["how"] = "well"
    frame["rooms"] = frame["rooms"].astype(int)
    write(frame, tmp_path / "in/a.parquet")
    check_same(request.getfixturevalue(bundle), tmp_path / "in", tmp_path)


def test_a_worker_that_is_killed_is_made_up_for(ray_cluster: None, prepared_bundle: Path, tmp_path: Path) -> None:
    frame = homes_frame(120_000)[["id", "area", "rooms"]].astype({"rooms": int})
    write(frame, tmp_path / "in/a.csv")
    score(prepared_bundle, f"{tmp_path}/in", f"{tmp_path}/local/", ScoreOptions(workers=2))
    killer = Killer()
    on_ray(prepared_bundle, tmp_path / "in", f"{tmp_path}/ray/", progress=killer)
    assert killer.killed
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_a_part_that_kills_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    part = Part(0, (0, 2))
    killed = [counted("run", part, "a.parquet") for _ in range(3)]
    for each in killed:
        each.__enter__()  # and never left
    with pytest.raises(ModelFailed, match=r"a\.parquet: .* again and again"), counted("run", part, "a.parquet"):
        pass
    assert not list(tmp_path.iterdir())
    with counted("run", part, "a.parquet"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_done_is_skipped(ray_cluster: None, compiled_bundle: Path, tmp_path: Path) -> None:
    for name in "ab":
        write(homes_frame(2000), tmp_path / f"in/{name}.parquet")
    on_ray(compiled_bundle, tmp_path / "in", tmp_path / "out")
    write(homes_frame(2500), tmp_path / "in/b.parquet")
    report = on_ray(compiled_bundle, tmp_path / "in", tmp_path / "out", resume=True)
    assert [file.skipped for file in report.files] == [True, False]
    assert [file.rows_in for file in report.files] == [2000, 2500]
    report = on_ray(compiled_bundle, tmp_path / "in", tmp_path / "out", resume=True)
    assert [file.skipped for file in report.files] == [True, True]


def test_an_error_comes_in_its_turn(ray_cluster: None, native_bundle: Path, tmp_path: Path) -> None:
    write(homes_frame(2000), tmp_path / "in/a.parquet")
    write(homes_frame(2000), tmp_path / "in/b.parquet")
    whole = (tmp_path / "in/b.parquet").read_bytes()
    (tmp_path / "in/b.parquet").write_bytes(whole[:100] + bytes(3000) + whole[3100:])
    with pytest.raises(InputError, match=r"b\.parquet: broken after row"):
        on_ray(native_bundle, tmp_path / "in", tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"a.parquet", "_rejects/a.parquet.jsonl"}


def test_too_many_rejects_end_it(ray_cluster: None, compiled_bundle: Path, big: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyRejects, match="more than 3 rows"):
        on_ray(compiled_bundle, big, tmp_path / "out.parquet", max_rejects=3)
    assert not contents(tmp_path)
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:  # they end a little later
        time.sleep(0.1)
    assert not workers()


def test_the_command_with_an_address(ray_cluster: None, compiled_bundle: Path, tmp_path: Path) -> None:
    import ray

    write(homes_frame(2000), tmp_path / "in.csv")
    address = ray.get_runtime_context().gcs_address
    command = ["score", compiled_bundle, tmp_path / "in.csv", tmp_path / "out.parquet", "--engine", "ray", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "fairlead", *map(str, command), "--address", address],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_in"] == 2000
    assert len([line for line in done.stderr.splitlines() if "fairlead.batch" not in line]) <= 1  # one is Ray's
    assert ray.nodes()[0]["Alive"]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nowhere.invalid:6379", "ray://127.0.0.1:10001", "nonsense:x"])
def test_no_cluster_at_the_address(address: str, free_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match="run this on a machine of the cluster"):
        RayScorers(address.format(port=free_port)).__enter__()
    assert time.monotonic() - start < 20


def test_a_bundle_is_unpacked_where_it_is_not(
    compiled_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle = open_bundle(compiled_bundle)
    packed = pack(bundle)
    assert packed.here().path == compiled_bundle
    shipped = ShippedBundle("/nowhere", packed.digest, packed.files)
    found = shipped.here()
    assert (found.digest, found.path.parent.parent) == (bundle.digest, tmp_path)
    (found.path / "model.onnx").unlink()  # as what cleans such directories does
    assert shipped.here().path == found.path
    broken = ShippedBundle("/nowhere", "0" * 64, {**packed.files, "model.onnx": b""})
    with pytest.raises(BundleError, match=r"model\.onnx"):
        broken.here()

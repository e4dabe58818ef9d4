from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.disk import replace_file
from fairlead.bundle.obtain import look_up
from fairlead.config import CacheSettings
from fairlead.dashboard.building.inputs import look_at
from fairlead.dashboard.building.watch import watch
from fairlead.dashboard.store import Recipe, Store, StoreManifest, encode_manifest
from fairlead.dashboard.trouble import Trouble
from load import eventually

# A build takes some seconds, and others may run beside it.
BUILD_S = 120


@pytest.fixture
def own_store(store_of: Callable[..., Path], survival_bundle: Path, passengers_csv: Path, tmp_path: Path) -> Path:
    """Give a store of a copy of the bundle and of the data, `data.csv`, which lie beside it."""
    shutil.copytree(survival_bundle, tmp_path / "model")
    shutil.copy(passengers_csv, tmp_path / "data.csv")
    return store_of(tmp_path / "model", "watched", target="survived", data=tmp_path / "data.csv", tabs=("importances",))


@contextmanager
def watching(store: Path, **how: float) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=([store], stop), kwargs={"quiet_s": 0.2, **how})
    thread.start()
    yield
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_what_changes_is_built_anew_and_what_is_broken_leaves_the_old_one_up(own_store: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    whole = data.read_text()
    write(data, "".join(whole.splitlines(keepends=True)[:101]))  # while nobody watches
    later_s = time.time() + 5
    os.utime(data, (later_s, later_s))
    with watching(own_store):
        eventually(lambda: Store.open(own_store).manifest.n_rows == 100, BUILD_S)
        assert Trouble.of(own_store) is None

        write(data, whole.replace("survived", "perished", 1))
        trouble = eventually(lambda: Trouble.of(own_store), BUILD_S)
        assert "data.csv" in trouble.reason
        assert "no column" in trouble.reason
        assert "Traceback" not in trouble.reason
        assert Store.open(own_store).manifest.n_rows == 100
        Store.open(own_store).verify()

        write(data, whole)
        eventually(lambda: Trouble.of(own_store) is None, BUILD_S)
        eventually(lambda: Store.open(own_store).manifest.n_rows == 200, BUILD_S)
    assert [path.name for path in own_store.parent.iterdir() if path.name.endswith(".partial")] == []


def put_manifest(path: Path, *inputs: Path, **more: Any) -> Path:
    """Make a store of a manifest alone, or replace it."""
    path.mkdir(exist_ok=True)
    manifest = StoreManifest(
        title="Titanic", description="", kind="classifier", target="survived", index_name="name", n_rows=3, n_read=3,
        bundle_name="survival", bundle_version="1", bundle_digest="", built_at=datetime.now(UTC).isoformat(),
        fairlead_version="1", versions={}, files={}, parts={}, settings={}, rows=None,
        inputs=tuple(map(str, inputs)), **{"recipe": Recipe("model.pkl", "/"), **more},
    )  # fmt: skip
    replace_file(path / "manifest.json", encode_manifest(manifest))
    return path


@pytest.fixture
def paper_store(tmp_path: Path) -> Path:
    """Give a store that was made of `data.csv`."""
    (tmp_path / "data.csv").write_text("a")
    return put_manifest(tmp_path / "titanic.dash", tmp_path / "data.csv")


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Have a script in the place of the process that builds, and give what counts its runs: a line each."""

    def put(*script: str) -> Path:
        runs = tmp_path / "runs"
        file = tmp_path / "builder"
        file.write_text("\n".join(["#!/bin/sh", f"echo run >> {runs}", f"n=$(wc -l < {runs})", *script]))
        file.chmod(0o755)
        runs.touch()
        monkeypatch.setattr("fairlead.dashboard.building.watch.sys.executable", str(file))
        monkeypatch.setattr("fairlead.dashboard.building.watch._LOOK_S", 0.02)
        monkeypatch.setattr("fairlead.dashboard.building.watch._PAUSE_S", 0.1)
        return runs

    return put


def n_runs(runs: Path) -> int:
    return len(runs.read_text().splitlines())


def test_a_build_that_failed_is_tried_again(paper_store: Path, builder: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing that is watched need change for it to work: a database is back, or there is memory again."""
    runs = builder(
        "echo 'fairlead: explain' >&2",
        f"if [ ! -e {tmp_path}/memory ]; then kill -9 $$; fi",
        f'if [ ! -e {tmp_path}/database ]; then echo "fairlead: db: it is away" >&2; exit 2; fi',
    )

    def reason() -> str:
        return getattr(Trouble.of(paper_store), "reason", "")

    with watching(paper_store):
        write(tmp_path / "data.csv", "b")
        eventually(lambda: reason() == "the build was ended by SIGKILL, maybe for want of memory")
        (tmp_path / "memory").touch()
        eventually(lambda: reason() == "db: it is away")
        (tmp_path / "database").touch()
        done = n_runs(runs)
        eventually(lambda: n_runs(runs) > done)
        time.sleep(0.4)
        assert n_runs(runs) <= done + 2


def test_it_goes_by_what_the_store_is_made_of_by_now(
    paper_store: Path, builder: Callable[..., Path], tmp_path: Path
) -> None:
    """Somebody built it anew of other rows, or an explainer.yaml names others now."""
    other = tmp_path / "other.csv"
    other.write_text("a")
    runs = builder("exit 0")
    with watching(paper_store):
        time.sleep(0.2)
        put_manifest(paper_store, other)
        time.sleep(0.3)
        write(tmp_path / "data.csv", "b")
        time.sleep(0.5)
        assert n_runs(runs) == 0
        write(other, "b")
        eventually(lambda: n_runs(runs) == 1)


def test_trouble_that_cannot_be_told_is_logged_and_it_goes_on(
    paper_store: Path, builder: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Trouble.path(paper_store).mkdir()  # not even root can write that
    runs = builder("echo 'fairlead: data.csv: half-written' >&2; exit 2")
    with watching(paper_store):
        write(tmp_path / "data.csv", "b")
        eventually(lambda: n_runs(runs) > 1)
    assert "stays as it was: data.csv: half-written" in caplog.text
    assert "that cannot be told on its page: " in caplog.text


def test_a_process_that_cannot_be_started_is_tried_again(
    paper_store: Path, builder: Callable[..., Path], tmp_path: Path
) -> None:
    runs = builder("exit 0")
    (tmp_path / "builder").chmod(0o644)
    with watching(paper_store):
        write(tmp_path / "data.csv", "b")
        trouble = eventually(lambda: Trouble.of(paper_store))
        assert "no process can be started for the build: Permission denied" in trouble.reason
        (tmp_path / "builder").chmod(0o755)
        eventually(lambda: n_runs(runs) == 1)


def test_another_version_behind_an_address_is_built(
    paper_store: Path, builder: Callable[..., Path], tmp_path: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.pkl").write_bytes(b"one")
    address = s3_server.put(f"watch/{tmp_path.name}", model)
    key = look_up(address, CacheSettings(), os.environ)
    runs = builder("exit 0")
    put_manifest(paper_store, tmp_path / "data.csv", recipe=Recipe(address, "/"), source_key=key)
    with watching(paper_store, refresh_s=0.1):
        time.sleep(0.5)
        assert n_runs(runs) == 0
        (model / "model.pkl").write_bytes(b"another")
        s3_server.put(f"watch/{tmp_path.name}", model)
        eventually(lambda: n_runs(runs) == 1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        eventually(lambda: "cannot be asked for a newer version" in caplog.text)
        time.sleep(0.5)
    assert caplog.text.count("cannot be asked for a newer version") == 1
    assert n_runs(runs) == 1


def test_looks_tell_another_size_time_or_file(tmp_path: Path) -> None:
    (tmp_path / "model" / "original").mkdir(parents=True)
    (tmp_path / "model" / "original" / "model.pkl").write_bytes(b"one")
    file = tmp_path / "data.csv"
    inputs = [tmp_path / "model", file]
    looks = [look_at(inputs)]
    for change in (
        lambda: file.write_text("a"),
        lambda: os.utime(file, (1, 1)),
        lambda: (tmp_path / "model" / "original" / "model.pkl").write_bytes(b"other"),
        (tmp_path / "model" / "more").touch,
        file.unlink,
    ):
        change()
        looks.append(look_at(inputs))
    assert all(one != other for one, other in itertools.pairwise(looks))
    assert look_at(inputs) == looks[-1]

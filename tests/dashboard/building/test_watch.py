from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.dashboard.building.watch import look_at, watch
from fairlead.dashboard.store import Store
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


@pytest.fixture
def watching(own_store: Path) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=([own_store], stop, 0.2))
    thread.start()
    yield
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_what_changes_is_built_anew_and_what_is_broken_leaves_the_old_one_up(
    own_store: Path, watching: None, tmp_path: Path
) -> None:
    whole = (tmp_path / "data.csv").read_text()
    lines = whole.splitlines(keepends=True)
    write(tmp_path / "data.csv", "".join(lines[:101]))
    eventually(lambda: Store.open(own_store).manifest.n_rows == 100, BUILD_S)
    assert Trouble.of(own_store) is None

    write(tmp_path / "data.csv", whole.replace("survived", "perished", 1))
    trouble = eventually(lambda: Trouble.of(own_store), BUILD_S)
    assert "data.csv" in trouble.reason
    assert "no column" in trouble.reason
    assert "Traceback" not in trouble.reason
    assert Store.open(own_store).manifest.n_rows == 100
    Store.open(own_store).verify()

    write(tmp_path / "data.csv", whole)
    eventually(lambda: Trouble.of(own_store) is None, BUILD_S)
    eventually(lambda: Store.open(own_store).manifest.n_rows == 200, BUILD_S)
    assert [path.name for path in own_store.parent.iterdir() if path.name.endswith(".partial")] == []


def test_what_changed_while_nobody_watched_is_built_anew(own_store: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    write(data, "".join(data.read_text().splitlines(keepends=True)[:81]))
    later_s = time.time() + 5
    os.utime(data, (later_s, later_s))
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=([own_store], stop, 0.2))
    thread.start()
    eventually(lambda: Store.open(own_store).manifest.n_rows == 80, BUILD_S)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


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

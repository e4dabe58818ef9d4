from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fairlead.dashboard.store import MANIFEST, Store
from fairlead.errors import DashboardError, FairleadError


@pytest.fixture
def copy(survival_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(survival_store, tmp_path / "titanic.dash"))


def refused(path: Path) -> str:
    with pytest.raises(FairleadError) as error:
        Store.open(path).verify()
    return str(error.value)


def test_a_store_says_what_it_is(survival_store: Path, survival_bundle: Path, passengers_csv: Path) -> None:
    store = Store.open(survival_store)
    told = store.manifest

    store.verify()
    assert store.name == "survival"
    assert (told.title, told.kind, told.n_rows, told.n_read) == ("Who <survived> & why", "classifier", 200, 200)
    assert (told.target, told.index_name, told.bundle_name) == ("survived", "name", "survival")
    assert set(told.files) == {"dashboard.yaml", "explainer.pickle"}
    assert store.manifest.inputs == (str(passengers_csv), str(survival_bundle))
    assert sum(told.parts.values()) == told.files["explainer.pickle"].size_bytes
    assert told.settings["interactions"] == "yes"


def test_from_another_directory(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(copy.parent)
    store = Store.open(Path("titanic.dash"))
    monkeypatch.chdir("/")

    assert store.path == copy
    store.verify()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: flip(path / "explainer.pickle"), "explainer.pickle: changed since the dashboard was built"),
        (lambda path: flip(path / "dashboard.yaml"), "dashboard.yaml: changed since the dashboard was built"),
        (lambda path: flip(path / MANIFEST), "manifest.json: "),
        (lambda path: (path / "explainer.pickle").unlink(), "explainer.pickle: missing from the dashboard"),
        (lambda path: (path / "more").touch(), "more: not part of the dashboard: remove it"),
        (lambda path: flip(path / "bundle" / "MLmodel"), "MLmodel: changed since the bundle was built"),
        (lambda path: (path / "bundle" / "more").touch(), "more: not part of the bundle"),
        (lambda path: shutil.rmtree(path / "bundle"), "bundle: not a bundle"),
        (lambda path: (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes()[:-40]), "expected the manifest"),
        (lambda path: (path / MANIFEST).unlink(), r"titanic.dash: not a dashboard \(no manifest.json\)"),
    ],
)
def test_a_byte_that_changed(change: Callable[[Path], object], expected: str, copy: Path) -> None:
    change(copy)

    assert expected.replace("\\", "") in refused(copy)


def test_another_bundle(copy: Path, pay_bundle: Path) -> None:
    shutil.rmtree(copy / "bundle")
    shutil.copytree(pay_bundle, copy / "bundle")

    assert "bundle: not the bundle that the dashboard was built with" in refused(copy)


def test_a_link_in_the_place_of_a_file(copy: Path, tmp_path: Path) -> None:
    (copy / "explainer.pickle").rename(tmp_path / "elsewhere")
    (copy / "explainer.pickle").symlink_to(tmp_path / "elsewhere")

    assert "explainer.pickle: expected a file, got a link" in refused(copy)


def test_a_newer_format(copy: Path) -> None:
    told = msgspec.json.decode((copy / MANIFEST).read_bytes())["store"]
    body = msgspec.json.encode(told | {"format_version": 2, "fairlead_version": "9.0"})
    (copy / MANIFEST).write_bytes(b'{"sha256": "%s", "store": %s}' % (hashlib.sha256(body).hexdigest().encode(), body))

    assert "expected dashboard format 1, got 2: use the fairlead that built it (9.0)" in refused(copy)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(DashboardError, match="make one with `fairlead dashboard build BUNDLE -o"):
        Store.open(tmp_path)

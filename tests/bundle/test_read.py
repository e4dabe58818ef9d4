from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fairlead
from fairlead.bundle.build import BuildOptions, BuildReport, build
from fairlead.bundle.read import open_bundle
from fairlead.errors import BundleError
from fairlead.predict.predictor import predictor_of

Build = Callable[..., BuildReport]
FILES = [
    "MLmodel",
    "model.onnx",
    "trees.bin",
    "original/model.pkl",
    "code/features.py",
    "reference.parquet",
    "input_example.json",
    "requirements.txt",
    "python_env.yaml",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_tree: Any) -> Path:
    """Give a bundle with every kind of file."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "model.pkl").write_bytes(pickle.dumps(small_tree))
    (folder / "features.py").write_text("class Unused:\n    pass\n")
    return build(folder / "model.pkl", folder / "bundle", BuildOptions(code=folder / "features.py")).path


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def test_every_file_is_known(made: Path) -> None:
    opened = open_bundle(made)

    assert {"MLmodel", *opened.manifest.files} == set(FILES)
    assert opened.read("model.onnx") == (made / "model.onnx").read_bytes()


@pytest.mark.parametrize("place", [0, 0.5, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte(bundle: Path, name: str, place: float) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[int(len(data) * place) if place == 0.5 else int(place)] ^= 1
    (bundle / name).write_bytes(data)

    with pytest.raises(BundleError, match=name):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_file_less(bundle: Path, name: str) -> None:
    (bundle / name).unlink()

    with pytest.raises(BundleError, match=f"{name}.*: (missing|make one)" if name != "MLmodel" else "no MLmodel"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_directory_in_place_of_a_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()

    with pytest.raises(BundleError, match=f"{name}: missing"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["more.txt", ".hidden", "code/other.py", "new/deep/file", "code/__pycache__/x.pyc"])
def test_a_file_more(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("")

    with pytest.raises(BundleError, match=f"{name}: not part of the bundle"):
        open_bundle(bundle)


@pytest.mark.parametrize("kind", ["file", "directory", "nothing", "pipe"])
def test_a_link_or_pipe_more(bundle: Path, tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(bundle / "more")
    else:
        (bundle / "more").symlink_to({"file": bundle / "MLmodel", "directory": tmp_path}.get(kind, tmp_path / "none"))

    with pytest.raises(BundleError, match="more: not part of the bundle"):
        open_bundle(bundle)


def test_a_link_to_the_very_same_bytes(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "model.onnx", tmp_path / "elsewhere")
    (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BundleError, match=r"model.onnx: expected a file, got a link"):
        open_bundle(bundle)


def test_an_empty_directory_more_holds_nothing(bundle: Path) -> None:
    (bundle / "empty").mkdir()

    assert open_bundle(bundle).manifest.name == "bundle"


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -10, -75])
def test_a_truncated_descriptor(bundle: Path, keep: int) -> None:
    (bundle / "MLmodel").write_bytes((bundle / "MLmodel").read_bytes()[:keep])

    with pytest.raises(BundleError, match=r"MLmodel: (changed|not a fairlead bundle)"):
        open_bundle(bundle)


def test_a_descriptor_with_more_at_its_end(bundle: Path) -> None:
    with (bundle / "MLmodel").open("ab") as file:
        file.write(b"\n")

    with pytest.raises(BundleError, match="MLmodel: changed"):
        open_bundle(bundle)


def test_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(BundleError, match=r"not a bundle \(no MLmodel\): make one with `fairlead build"):
            open_bundle(path)


def test_a_descriptor_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").mkdir()

    with pytest.raises(BundleError, match="MLmodel: cannot be read"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_a_bundle_that_changes_while_open(bundle: Path, change: str) -> None:
    opened = open_bundle(bundle)
    if change == "gone":
        shutil.rmtree(bundle)
    else:
        (bundle / "model.onnx").write_bytes(b"planted")

    with pytest.raises(BundleError, match=r"model.onnx: (changed|cannot be read)"):
        opened.read("model.onnx")


def test_a_native_model_is_loaded_from_verified_bytes(build_here: Build, small_tree: Any) -> None:
    opened = open_bundle(build_here(small_tree, engine="native").path)
    (opened.path / "original" / "model.pkl").write_bytes(pickle.dumps("planted"))

    with pytest.raises(BundleError, match=r"original/model.pkl: changed"):
        predictor_of(opened)


def test_a_link_to_a_bundle_is_followed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)

    assert fairlead.load(tmp_path / "current").name == "bundle"


def test_the_digest_tells_bundles_apart(made: Path, build_here: Build, small_tree: Any) -> None:
    assert open_bundle(made).digest == open_bundle(made).digest
    assert open_bundle(made).digest != open_bundle(build_here(small_tree, version="2").path).digest

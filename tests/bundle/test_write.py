from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.write import check_target, staged
from fairlead.errors import BundleError

FILES = {"MLmodel": b"loader_module: fairlead.bundle.pyfunc\n", "original/deep/model.pkl": b"x"}


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_files_appear_all_at_once(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with staged(target, FILES) as partial:
        assert not target.exists()
        assert partial.parent == tmp_path
        assert content(partial) == FILES

    assert content(target) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with staged(target, FILES):
        pass
    with pytest.raises(KeyboardInterrupt), staged(target, {"MLmodel": b"new"}):
        raise KeyboardInterrupt

    assert content(target) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_is_there_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for files in (FILES, {"other": b"new"}):
        with staged(target, files):
            pass

    assert content(target) == {"other": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_relative_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_target(Path("bundle"))
    with staged(Path("bundle"), FILES):
        pass

    assert content(tmp_path / "bundle") == FILES


def test_many_at_once(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    start = threading.Barrier(8)
    errors: list[Exception] = []

    def write(number: int) -> None:
        try:
            start.wait()
            with staged(target, {"MLmodel": b"%d" % number, "other": b"%d" % number}):
                pass
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert len(set(content(target).values())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_mlflows_own_model_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n")

    with pytest.raises(BundleError, match="not empty and no intact bundle, so it is left alone"):
        check_target(tmp_path)


def test_a_bundle_is_replaced_but_not_what_lies_beside_it(build_here: Any, small_tree: Any) -> None:
    bundle = build_here(small_tree).path
    check_target(bundle)
    (bundle / "original" / "notes.md").write_text("mine")

    with pytest.raises(BundleError, match="so it is left alone"):
        check_target(bundle)

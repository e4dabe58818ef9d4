from __future__ import annotations

import dataclasses
import pickle
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.bundle.pickles import load_pickle
from fairlead.bundle.user_code import load_module, read_source
from fairlead.errors import SourceError


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_becomes_a_module_and_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "features.py"
    path.write_text("from dataclasses import dataclass\n@dataclass\nclass Foo:\n    x: int = 1\n")
    module = load_module(path, "features")
    assert sys.modules["features"] is module
    assert module.__file__ == str(path)
    assert dataclasses.asdict(module.Foo()) == {"x": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.py"]


def test_a_planted_pyc_is_not_read(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("VALUE = 'planted'\n")
    path = tmp_path / "features.py"
    path.write_text("VALUE = 'honest'\n")
    cache = tmp_path / "__pycache__" / f"features.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(planted), str(cache), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert load_module(path, "features").VALUE == "honest"


def test_bytes_are_run_in_their_own_encoding() -> None:
    module = load_module("# -*- coding: latin-1 -*-\nNAME = 'Käse'\n".encode("latin-1"), "features")
    assert module.NAME == "Käse"


def test_a_later_module_of_the_same_name_replaces_it() -> None:
    first = load_module(b"VALUE = 1", "features")
    second = load_module(b"VALUE = 2", "features")
    assert (first.VALUE, second.VALUE) == (1, 2)
    assert sys.modules["features"] is second


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ndef broken(:\n", r"features\.py, line 2: .*SyntaxError"),
        ("x = 1\n\nraise ValueError('no luck')\n", r"features\.py, line 3: .*ValueError: no luck"),
        ("import json\njson.loads('')\n", r"features\.py, line 2: .*JSONDecodeError"),
        ("import no_such_library\n", r"features\.py, line 1: .*No module named 'no_such_library'"),
        ("import sys\nsys.exit(3)\n", r"features\.py, line 2: .*SystemExit"),
        ("x = '\0'\n", r"features\.py.*null bytes"),
    ],
)
def test_a_failing_module_is_told_with_file_and_line(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "features.py"
    path.write_text(source)
    with pytest.raises(SourceError, match=message) as caught:
        load_module(path, "features")
    assert "Traceback" not in str(caught.value)
    assert "features" not in sys.modules


def test_a_failing_module_leaves_the_earlier_one() -> None:
    first = load_module(b"VALUE = 1", "features")
    with pytest.raises(SourceError):
        load_module(b"1 / 0", "features")
    assert sys.modules["features"] is first


@pytest.mark.parametrize("name", ["json", "tomllib", "pytest", "numpy"])
def test_a_library_is_not_replaced(name: str) -> None:
    with pytest.raises(SourceError, match="rename the file"):
        load_module(b"VALUE = 1", name)


def test_a_name_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(SourceError, match="cannot be a module's name"):
        load_module(b"", "my-features")


def test_a_missing_file_and_another_kind_of_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_source(tmp_path / "features.py")
    with pytest.raises(SourceError, match="expected a Python file"):
        read_source(tmp_path / "features.ipynb")


def test_a_trusted_class_of_the_module_unpickles() -> None:
    module = load_module(b"class Foo:\n    def predict(self, X): return [1]\n", "features")
    data = pickle.dumps(module.Foo())
    loaded, _, _ = load_pickle(data, frozenset({"features.Foo"}), "model.bin", {"features": module})
    assert type(loaded) is module.Foo


def test_the_same_source_is_the_same_module() -> None:
    first = load_module(b"class Ride:\n    pass\n", "features")
    assert load_module(b"class Ride:\n    pass\n", "features").Ride is first.Ride

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.formats import LoadRequest, load
from fairlead.errors import SourceError

# The fourth of the documents the product is made from, waiting less.
FANCY = """
from time import sleep

class FancyModel:
  def __init__(self):
    # Here we load pretrained model. It lasts some long period
    sleep(0.0005)

  def predict(self, text):
    sleep(0.00005)
    return "Can't tell anything smart about: {}".format(text)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_the_fancy_model_in_the_working_directory(here: Path, reopen: Any) -> None:
    (here / "FancyModel.py").write_text(FANCY)
    loaded = load(LoadRequest("FancyModel:FancyModel"))
    assert loaded.format == "python"
    assert loaded.files == {"FancyModel.py": FANCY.encode()}
    del sys.modules["FancyModel"]  # as in the process that serves
    again = reopen(loaded, model_class="FancyModel:FancyModel")
    for each in (loaded, again):
        assert each.model.predict("rain") == "Can't tell anything smart about: rain"
    assert type(again.model) is not type(loaded.model)
    assert [path.name for path in here.iterdir()] == ["FancyModel.py"]


def test_served_from_the_code_directory_not_from_where_it_runs(here: Path, tmp_path: Path, reopen: Any) -> None:
    (here / "FancyModel.py").write_text(FANCY)
    loaded = load(LoadRequest("FancyModel:FancyModel"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "FancyModel.py").write_bytes(loaded.files["FancyModel.py"])
    (code / "features.py").write_text("raise RuntimeError('not asked for')")
    (here / "FancyModel.py").write_text("raise RuntimeError('changed since')")
    again = reopen(loaded, code, model_class="FancyModel:FancyModel")
    assert again.model.predict("rain").endswith("rain")


def test_given_by_code_on_sys_path_and_in_a_package(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "package").mkdir(parents=True)
    (elsewhere / "fancy.py").write_text(FANCY)
    (elsewhere / "package" / "__init__.py").write_text("raise RuntimeError('not asked for')")
    (elsewhere / "package" / "fancy2.py").write_text(FANCY)
    assert load(LoadRequest("fancy:FancyModel", code=elsewhere / "fancy.py")).model
    with pytest.raises(SourceError, match=r"fancy: no module of that name .*--code path/to/fancy\.py"):
        load(LoadRequest("fancy:FancyModel"))
    monkeypatch.syspath_prepend(str(elsewhere))
    assert load(LoadRequest("fancy:FancyModel")).files.keys() == {"fancy.py"}
    assert load(LoadRequest("package.fancy2:FancyModel")).files.keys() == {"fancy2.py"}
    assert not list(elsewhere.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Other: pass", r"no class Fancy in it, found Other"),
        ("Fancy = 1", r"no class Fancy in it, found no class at all"),
        ("class Fancy: pass", r"Fancy has no method predict"),
        (
            "class Fancy:\n    def __init__(self, path): pass\n    def predict(self): pass",
            r"Fancy\(\) failed \(TypeError: .*'path'\): it has to be made without arguments",
        ),
        (
            "class Fancy:\n    def __init__(self): open('weights.bin')\n    def predict(self): pass",
            r"Fancy\(\) failed \(FileNotFoundError: .*weights\.bin",
        ),
        ("1 / 0", r"mymodel\.py, line 1: .*ZeroDivisionError"),
        ("class Fancy(:", r"mymodel\.py, line 1: .*SyntaxError"),
    ],
)
def test_what_is_wrong_with_the_class_is_told(here: Path, source: str, message: str) -> None:
    (here / "mymodel.py").write_text(source)
    with pytest.raises(SourceError, match=message):
        load(LoadRequest("mymodel:Fancy"))


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(SourceError, match=r"expected a module in one \.py file"):
        load(LoadRequest("numpy._core._multiarray_umath:Fancy"))

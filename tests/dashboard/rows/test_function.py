import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.dashboard.rows import RowsOptions, open_rows, prepare
from fairlead.errors import DashboardError
from fairlead.schema import Schema

MODULE = """
import functools, sqlite3, sys
import numpy as np
import pandas as pd

CALLS = []
RIDE = {"Distance (km)": np.float64(1.5), "passengers": 1.0, "zone": "1", "shared": True,
        "start": pd.Timestamp("2026-10-01T10:00:00.5Z"), "late": np.int64(1)}
FRAME = pd.DataFrame([RIDE], index=["007"])


def row(index):
    CALLS.append(index)
    return RIDE if index == "007" else None


cached = functools.lru_cache(maxsize=10)(row)


def make(frame):
    def closure(index):
        return frame.loc[[index]]
    return closure


closure = make(FRAME)
series = lambda index: FRAME.loc[index]
partial = functools.partial(lambda table, index: table[index], {"007": RIDE})


class Store:
    def __init__(self):
        self.rides = {"007": RIDE}

    def row(self, index):
        CALLS.append(index)
        return self.rides[index]

    def y(self, index):
        return pd.Series([7])

    def exists(self, index):
        return index in self.rides

    def indexes(self):
        return pd.Index([7.0, None, "a"])


class Called:
    def __call__(self, index):
        return FRAME.head(0) if index != "007" else FRAME


class Plain:
    row = staticmethod(row)


class Broken:
    row = staticmethod(lambda index: 1 / 0)
    indexes = staticmethod(lambda: 1 / 0)


store, called, plain, broken = Store(), Called(), Plain(), Broken()
two = lambda index: pd.concat([FRAME, FRAME])
text = lambda index: "a row"
unfit = lambda index: {**RIDE, "passengers": "many"}
NUMBER = 3


async def later(index):
    return RIDE
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write a module into the working directory, and give its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "rides_of_test.py").write_text(MODULE)
    yield "rides_of_test"
    sys.modules.pop("rides_of_test", None)


Opened = Any


@pytest.mark.parametrize(
    "name", ["row", "cached", "closure", "series", "partial", "store", "store.row", "called", "plain", "Plain.row"]
)
def test_functions_of_any_kind_give_rows(name: str, module: str, first: dict[str, Any], opened: Opened) -> None:
    rows = opened(f"{module}:{name}", target="late")
    assert rows.record("007") == first
    assert rows.exists("007")
    assert (rows.exists("7"), rows.record("7"), rows.y("7")) == (False, None, None)
    assert rows.y("007") == (7 if name == "store" else 1)
    assert type(rows.y("007")) is int
    assert rows.indexes() == (["7.0", "a"] if name == "store" else None)
    rows.close()


def test_a_function_is_called_once_for_all_that_is_asked(module: str, opened: Opened) -> None:
    rows = opened(f"{module}:store")
    for _ in range(3):
        assert (rows.exists("007"), rows.y("007"), rows.exists("8")) == (True, 7, False)
    assert sys.modules[module].CALLS == ["007"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "not found: module 'rides_of_test' has no attribute 'nothing'"),
        ("Store", "expected a function of an index, or an object with a method `row`, .*, got a class"),
        ("NUMBER", "expected a function .*, got one of int"),
        ("later", "expected a function that can be called, got an async one"),
    ],
)
def test_what_is_no_function_is_refused(name: str, told: str, module: str, opened: Opened) -> None:
    with pytest.raises(DashboardError, match=f"^rides_of_test:{name}: {told}"):
        opened(f"{module}:{name}")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", r"the function failed \(ZeroDivisionError: division by zero\): mend it"),
        ("two", r"the function failed \(ValueError: expected a DataFrame of one row, got 2\)"),
        ("text", r"the function failed \(TypeError: expected a mapping or a DataFrame of one row, got one of str\)"),
        ("unfit", "a row that does not fit the model: passengers: expected an integer, got a string"),
    ],
)
def test_a_function_that_fails_is_told(name: str, told: str, module: str, opened: Opened) -> None:
    rows = opened(f"{module}:{name}")
    with pytest.raises(DashboardError, match=f"^rides_of_test:{name}: {told}"):
        rows.record("007")
    assert rows.trouble is not None
    assert rows.indexes() is None


@pytest.mark.parametrize(("source", "told"), [("import sys; sys.exit(3)", "SystemExit: 3"), ("1 +", "SyntaxError")])
def test_a_module_that_cannot_be_imported_is_told(source: str, told: str, module: str, opened: Opened) -> None:
    Path(f"{module}.py").write_text(source)
    with pytest.raises(DashboardError, match=rf"the module cannot be imported from .* \({told}"):
        opened(f"{module}:row")
    with pytest.raises(DashboardError, match=r"\(ModuleNotFoundError: No module named 'no_such_module'\)"):
        opened("no_such_module:row")


def test_the_module_is_found_from_another_directory_and_not_mistaken(
    module: str, schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = prepare(RowsOptions(f"{module}:row", index="ride_id"), schema, tmp_path / "rows", lambda what, share: None)
    assert part == {
        "kind": "function", "source": f"{module}:row", "path": str(tmp_path), "index": "ride_id", "target": None,
    }  # fmt: skip
    del sys.modules[module]
    sys.path.remove(str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert open_rows(tmp_path / "rows", part, schema, {}).exists("007")
    (other / f"{module}.py").write_text(MODULE)
    with pytest.raises(
        DashboardError, match=r"other/rides_of_test.py cannot be imported, since .* has its name: rename"
    ):
        prepare(RowsOptions(f"{module}:row"), schema, tmp_path / "rows", lambda what, share: None)

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fairlead.dashboard.building.plan import DashboardOptions
from fairlead.dashboard.building.recipe import environment_of, options_of, recipe_of, where
from fairlead.dashboard.rows import RowsOptions
from fairlead.dashboard.rows.connections import VARIABLE
from fairlead.dashboard.store import Recipe
from fairlead.errors import DashboardError


def test_it_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "churn").mkdir()
    options = DashboardOptions(
        data=Path("test.csv"), tabs=("importances",), interactions=True, rows=RowsOptions("rides.parquet", "ride_id")
    )
    recipe = msgspec.json.decode(msgspec.json.encode(recipe_of("churn", options)), type=Recipe)
    monkeypatch.chdir("/")

    assert recipe.source == str(tmp_path / "churn")
    assert recipe.directory == str(tmp_path)
    again = options_of(recipe)
    assert again == DashboardOptions(
        data=tmp_path / "test.csv",
        tabs=("importances",),
        interactions=True,
        rows=RowsOptions(str(tmp_path / "rides.parquet"), "ride_id"),
    )
    assert recipe_of("models:/churn@champion", options).source == "models:/churn@champion"
    assert options_of(recipe_of("churn", DashboardOptions(rows=RowsOptions("rides:row")))).rows == RowsOptions(
        "rides:row"
    )


def test_a_password_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "postgresql://ann:top-secret@db/rides"
    options = DashboardOptions(rows=RowsOptions(address, query="select * from rides where id = {index}"))
    recipe = recipe_of("churn", options)

    assert b"top-secret" not in msgspec.json.encode(recipe)
    assert environment_of(options) == {VARIABLE: address}
    assert environment_of(DashboardOptions()) == {}
    monkeypatch.setenv(VARIABLE, address)
    assert options_of(recipe) == options


def test_a_build_runs_where_it_ran(tmp_path: Path) -> None:
    before = Path.cwd()
    with where(Recipe("model.pkl", str(tmp_path))):
        assert Path.cwd() == tmp_path
    assert Path.cwd() == before
    gone = where(Recipe("model.pkl", str(tmp_path / "none")))
    with pytest.raises(DashboardError, match="none: the directory that the dashboard was built in cannot be entered"):
        gone.__enter__()

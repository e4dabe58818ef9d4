from __future__ import annotations

import mmap
import shutil
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from fairlead.dashboard.boards import board as module
from fairlead.dashboard.boards.board import Board, library_versions, load_board
from fairlead.dashboard.boards.page import Page
from fairlead.dashboard.store import MANIFEST, Store, encode_manifest, stored_file
from fairlead.errors import DashboardError
from fairlead.predict.predictor import load


def test_a_board_of_a_store(survival_board: Board, survival_store: Path) -> None:
    assert (survival_board.name, survival_board.title) == ("survival", "Who <survived> & why")
    assert survival_board.store.path == survival_store
    client = survival_board.server.test_client()
    assert client.get("/survival/").status_code == 200
    assert client.get("/elsewhere/").status_code == 404


def test_what_workers_share_is_mapped(survival_board: Board) -> None:
    values = survival_board.explainer.get_shap_values_df().to_numpy()
    while isinstance(values, np.ndarray):
        values = values.base

    assert isinstance(memoryview(values).obj, mmap.mmap)


def answer(bundle: Path, passengers: pd.DataFrame, name: str) -> Any:
    predictor = load(bundle)
    row = passengers.loc[name]
    return predictor.predict({key: None if pd.isna(row[key]) else row[key] for key in predictor.schema.names})


def test_predictions_are_those_of_the_bundle(
    survival_board: Board, survival_bundle: Path, pay_board: Board, pay_bundle: Path, passengers: pd.DataFrame
) -> None:
    for name in ("P000", "P101"):
        shown = survival_board.explainer.prediction_result_df(name, round=9).probability
        told = answer(survival_bundle, passengers, name)["probabilities"]
        assert shown.tolist() == pytest.approx(list(told.values()), abs=1e-9)
        shown = pay_board.explainer.prediction_result_df(name, round=9).iloc[0, 1]
        assert float(shown) == pytest.approx(answer(pay_bundle, passengers, name)["prediction"], abs=1e-9)


def test_rows_from_outside(pay_board: Board, passengers: pd.DataFrame, passengers_csv: Path) -> None:
    assert "P003" not in pay_board.explainer.idxs
    assert pay_board.rows is not None
    assert pay_board.explainer.get_y("P003") == passengers["pay"]["P003"]
    assert not pay_board.explainer.index_exists("P999")
    page = Page(pay_board)
    page.open()
    page.choose("P003")
    assert not page.failed
    assert set(pay_board.store.manifest.files) > {"dashboard.yaml", "explainer.pickle"}
    assert str(passengers_csv) in pay_board.store.manifest.inputs


def test_a_store_that_changed_is_not_loaded(
    survival_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(survival_store, tmp_path / "a.dash"))
    with (copy / "explainer.pickle").open("r+b") as file:
        file.write(b"cposix\nsystem\n")
    monkeypatch.setattr(module, "_explainer", None)

    with pytest.raises(DashboardError, match=r"explainer\.pickle: changed since the dashboard was built"):
        load_board(copy, "/")


def test_an_explainer_of_other_libraries(survival_store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(survival_store, tmp_path / "a.dash"))
    pickled = b"\x80\x04\x8c\x09no_module\x94\x8c\x05Thing\x94\x93\x94)\x81\x94."
    (copy / "explainer.pickle").write_bytes(struct.pack("<8sQQ", b"fairlead", len(pickled), 0) + pickled)
    manifest = Store.open(copy).manifest
    told = msgspec.structs.replace(
        manifest,
        versions=library_versions() | {"pandas": "0.9"},
        files=manifest.files | {"explainer.pickle": stored_file(copy / "explainer.pickle")},
    )
    (copy / MANIFEST).write_bytes(encode_manifest(told))

    with pytest.raises(
        DashboardError, match=r"cannot be loaded .*: it was written with pandas 0.9 \(here .*\): build it"
    ):
        load_board(copy, "/")


def test_another_store_that_comes_while_one_is_loaded(
    survival_store: Path, survival_board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try finds the explainer of the second store, which does not fit; the next one finds all of it."""
    path = Path(shutil.copytree(survival_store, tmp_path / "a.dash"))
    tries = []

    def swapped(*told: Any) -> Board:
        tries.append(told)
        if len(tries) == 1:
            shutil.copytree(survival_store, tmp_path / "b.dash")
            shutil.rmtree(path)
            (tmp_path / "b.dash").rename(path)
            raise DashboardError("explainer.pickle: changed")
        return survival_board

    monkeypatch.setattr(module, "_load", swapped)
    assert load_board(path, "/") is survival_board
    assert len(tries) == 2

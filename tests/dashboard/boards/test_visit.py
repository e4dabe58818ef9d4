from __future__ import annotations

import re
from typing import Any

import pytest

from fairlead.dashboard.boards.board import Board
from fairlead.dashboard.boards.page import Page
from fairlead.dashboard.boards.visit import visit


def test_every_callback_is_asked(pay_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()
    real = Page._ask

    def noted(page: Page, callback: Any, changed: Any) -> Any:
        asked.add(callback.output)
        return real(page, callback, changed)

    monkeypatch.setattr(Page, "_ask", noted)
    outside = (pay_board.store.manifest.rows or {}).get("examples", ())
    found = visit(pay_board, outside)

    assert found.failed == ()
    assert found.callbacks == len(asked) == len(pay_board.dashboard.app.callback_map)


def test_what_fails_is_told(survival_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no plot today")

    monkeypatch.setattr(type(survival_board.explainer), "plot_pdp", fail)
    found = visit(survival_board)

    assert found.failed
    assert all("pdp-graph" in one and one.endswith("status 500") for one in found.failed)


def test_a_page_keeps_what_it_shows(survival_board: Board) -> None:
    page = Page(survival_board)
    page.open()
    page.choose("P007")
    chosen = [page.value((name, "value")) for name in page.find(re.compile("-index-"))]

    assert "P007" in chosen
    assert page.value(("no such", "value")) is None
    assert not page.failed

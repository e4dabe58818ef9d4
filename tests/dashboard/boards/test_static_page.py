from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairlead.dashboard.boards import static_page
from fairlead.dashboard.boards.board import Board
from fairlead.dashboard.boards.static_page import self_contained
from fairlead.errors import DashboardError


@pytest.fixture(scope="module")
def page(survival_page: Path) -> str:
    return survival_page.read_text()


def test_it_is_one_file(page: str) -> None:
    assert not re.findall(r"<(?:script|link|img)[^>]*\s(?:src|href)=", page)
    assert page.count("plotly.js v") == 1
    assert "Bootstrap v5" in page


def test_a_row_is_chosen_in_every_tab(page: str) -> None:
    assert "Selected index: <b>P000</b>" in page
    assert "Selected: <b>P000</b>" in page
    assert "no index selected" not in page
    assert "input data incorrect" not in page


def test_texts_are_escaped(page: str) -> None:
    assert "<title>Who &lt;survived&gt; &amp; why</title>" in page
    assert "<H1>Who &lt;survived&gt; &amp; why</H1>" in page
    assert "<survived>" not in page


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(DashboardError, match=r"the page fetches https://elsewhere\.example/x\.js"):
        self_contained('<script async src="https://elsewhere.example/x.js"></script>')


def test_where_it_cannot_be_written(survival_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_page, "_rendered", lambda board: "<p>")
    with pytest.raises(DashboardError, match=r"x\.html: cannot be written: No such file"):
        static_page.write(survival_board, Path("/none/x.html"))

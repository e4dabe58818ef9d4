"""A dashboard as one file to send to people: nothing in it comes from elsewhere, and all texts are escaped.

Layer L3; imports plotly and explainerdashboard when one is written.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.bundle.disk import replace_file
from fairlead.dashboard.boards.page import Page
from fairlead.dashboard.environment import library
from fairlead.errors import DashboardError

if TYPE_CHECKING:
    from fairlead.dashboard.boards.board import Board

_ELEMENT = re.compile(
    r"""<script[^>]*\ssrc="(?P<script>https?://[^"]+)"[^>]*></script>|<link[^>]*\shref="(?P<style>https?://[^"]+)"[^>]*>"""
)


def write(board: Board, path: Path) -> None:
    """Write a board as one file, with its first row chosen.

    Raises
    ------
    DashboardError
        When it cannot be written, or the page wants something from elsewhere that is not known.
    """
    page = self_contained(_rendered(board))
    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise DashboardError(f"{path}: cannot be written: {error.strerror}") from error


def self_contained(page: str) -> str:
    """Put into a page what it would fetch.

    Raises
    ------
    DashboardError
        When it fetches something that is not known.
    """
    import plotly.offline

    assets = Path(library().__file__).parent / "static"
    # Once, and in front of all that uses it.
    known: dict[str, Callable[[], str]] = {
        "bootstrap.min.css": lambda: f"<style>{(assets / 'bootstrap.min.css').read_text(encoding='utf-8')}</style>",
        "bootstrap.min.js": lambda: _script((assets / "bootstrap.min.js").read_text(encoding="utf-8")),
        "popper.min.js": lambda: _script(plotly.offline.get_plotlyjs()),
    }

    def replaced(match: re.Match[str]) -> str:
        address = match["script"] or match["style"]
        name = address.rpartition("/")[2]
        if name in known:
            return known[name]()
        if re.fullmatch(r"plotly-[\w.]+\.js", name):
            return ""
        raise DashboardError(f"the page fetches {address}, which is not known: give no bootstrap theme of elsewhere")

    return _ELEMENT.sub(replaced, page)


def _rendered(board: Board) -> str:
    """Have explainerdashboard write the page as it is once its first row was chosen."""
    page = Page(board)
    page.open()
    page.choose(str(board.explainer.idxs[0]))
    layout = board.dashboard.explainer_layout
    written: str = layout.to_html({place: page.value(place) for place in layout.get_state_tuples()})
    return re.sub("<title>.*?</title>", lambda _: f"<title>{html.escape(board.title)}</title>", written, count=1)


def _script(source: str) -> str:
    return f"<script>{source}</script>"

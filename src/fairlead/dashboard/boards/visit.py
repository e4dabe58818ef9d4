"""A visit to a board: every callback of its page is asked, as a person would do it who tries everything.

Whoever builds a dashboard proves with it that all of it works. Layer L3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.dashboard.boards.board import Board
from fairlead.dashboard.boards.page import Page

_INPUT = re.compile(r"^feature-input-(?!index-).*-input-")
_COLUMN = re.compile(r"-col-")
_CLASS = re.compile(r"^pos-label-")
_UNKNOWN_ROW = "no row is called so"


@dataclass(frozen=True)
class Visit:
    """What came of a visit.

    Parameters
    ----------
    callbacks : of the page, each of which was asked at least once.
    failed : requests that failed, and how.
    """

    callbacks: int
    failed: tuple[str, ...]


def visit(board: Board, outside: Sequence[str] = ()) -> Visit:
    """Ask for the page of a board, and for all that a person may do there.

    The rows that are chosen are one inside the explainer, those of `outside`, and one that does not exist.

    Parameters
    ----------
    outside : rows that are not in the explainer.
    """
    page = Page(board)
    page.open()
    for row in (str(board.explainer.idxs[0]), *outside, _UNKNOWN_ROW, str(board.explainer.idxs[-1])):
        page.choose(row)
    # A number and a word: the two kinds of features that there are.
    for name in {bool(page.options(name)): name for name in page.find(_INPUT)}.values():
        page.change(name, page.another(name))
    words = set(board.explainer.cat_cols)
    for name in page.find(_COLUMN):
        for column in {column in words: column for column in page.options(name)}.values():
            page.change(name, column)
    for name in page.find(_CLASS):
        chosen = page.value((name, "value"))
        page.change(name, page.another(name))
        page.change(name, chosen)
    page.ask_the_rest()
    return Visit(len(page.callbacks), tuple(page.failed))

"""The boards of a process: brought in, put in each other's place, kept where what comes next is broken.

Layer L3; `board` loads what is kept here, `hub` shows it, `following` says when there is something new.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.dashboard.store import MANIFEST, SUFFIX, identity
from fairlead.errors import DashboardError, FairleadError

if TYPE_CHECKING:
    from fairlead.dashboard.boards.board import Board

# Where every board believes to be. The hub puts the true place into its page: one board can be reached in any.
PLACE = "/-board-/"
# The hub's own paths.
RESERVED = frozenset({"login", "logout", "livez", "readyz", "static"})

Load = Callable[[Path, str], "Board"]

logger = logging.getLogger("fairlead.dashboard")
# Dash's components are numbered by a counter of the whole process, begun anew for each board.
_making = threading.Lock()


@dataclass(frozen=True)
class Shown:
    """What there is under a name.

    Parameters
    ----------
    name : of the dashboard, and its part of the path.
    path : of its store.
    board : what is shown; None when none could be loaded so far.
    version : tells the store that `board` was loaded from apart from those before and after it.
    trouble : why `board` is not what the store holds now; None when it is.
    """

    name: str
    path: Path
    board: Board | None = None
    version: str = ""
    trouble: str | None = None


class Shelf:
    """The boards of this process, by name; threads may share it.

    Parameters
    ----------
    load : makes a board of a store, and of the path that it believes to be reached under.
    """

    def __init__(self, load: Load | None = None) -> None:
        self._load = load or _load_board
        self._shown: dict[str, Shown] = {}

    def all(self) -> list[Shown]:
        """Give all there is, by name."""
        return [shown for _, shown in sorted(self._shown.items())]

    def get(self, name: str) -> Shown | None:
        """Give what there is under a name."""
        return self._shown.get(name)

    def bring(self, name: str, path: Path) -> bool:
        """Load a store, and show it in the place of what was there.

        Returns
        -------
        Whether it could be loaded. If not, what was there stays, and says why.
        """
        version = identity(path) or ""
        try:
            with _making:
                board = self._load(path, PLACE)
                _open_page(board)
        except FairleadError as error:
            self.fault(name, path, str(error))
            return False
        except Exception as error:
            # What a library raises over a store that is whole: one dashboard less, and all the others.
            logger.exception("dashboard %s cannot be loaded", name)
            self.fault(name, path, f"{path}: cannot be loaded ({type(error).__name__}: {error}): build it again")
            return False
        # Dash writes a fault of a page to standard output; it belongs where all else is logged.
        board.server.logger.handlers.clear()
        if board.rows is not None:
            # A request that is under way has the board, too: its rows are let go of with the last that has it.
            weakref.finalize(board, board.rows.close).atexit = False
        self._shown[name] = Shown(name, path, board, version)
        return True

    def fault(self, name: str, path: Path, reason: str) -> None:
        """Note why a store is not shown as it is now."""
        logger.error("dashboard %s: %s", name, reason)
        self._shown[name] = replace(self._shown.get(name, Shown(name, path)), trouble=reason)

    def drop(self, name: str) -> None:
        """Show it no more."""
        self._shown.pop(name, None)


def find(places: Iterable[Path]) -> dict[str, Path]:
    """Name the stores that are given; a folder without a manifest stands for the stores in it.

    Returns
    -------
    Paths by name, ``titanic`` for ``/srv/titanic.dash``. What is not there has its name too.

    Raises
    ------
    DashboardError
        When two have one name, or one has a name that the hub needs itself.
    """
    found: dict[str, Path] = {}
    for place in places:
        for path in _stores(place.absolute()):
            name = path.name.removesuffix(SUFFIX)
            if name in RESERVED:
                raise DashboardError(f"{path}: /{name} is a path of the hub's own: give the store another name")
            if name in found and found[name] != path:
                raise DashboardError(f"{found[name]} and {path}: two dashboards called {name}: rename one of them")
            found[name] = path
    return found


def _stores(place: Path) -> list[Path]:
    if place.is_dir() and place.suffix != SUFFIX and not (place / MANIFEST).exists():
        return sorted(manifest.parent for manifest in place.glob(f"[!.]*{SUFFIX}/{MANIFEST}"))
    return [place]


def address(name: str) -> str:
    """Give the path of a dashboard below the hub: ``/titanic/``."""
    return f"/{quote(name, safe='')}/"


def bring_all(shelf: Shelf, stores: Mapping[str, Path]) -> None:
    """Load stores; one that cannot be loaded holds up no other.

    Raises
    ------
    DashboardError
        When not one could be loaded.
    """
    loaded = [shelf.bring(name, path) for name, path in stores.items()]
    if not any(loaded):
        reasons = [shown.trouble for shown in shelf.all() if shown.trouble]
        raise DashboardError("\n".join(reasons) or "no dashboard is given: build one with `fairlead dashboard build`")


def _open_page(board: Board) -> None:
    """Ask a board for its page: Dash knows which files its page needs only once it has made one.

    Processes that are forked later know it from then on, whichever of them a browser asks for them.

    Raises
    ------
    DashboardError
        When there is none.
    """
    client = board.server.test_client()
    for part in ("", "_dash-layout", "_dash-dependencies"):
        if (status := client.get(PLACE + part).status_code) != HTTPStatus.OK:
            raise DashboardError(f"{board.store.path}: its page answers with {status}: build it again")


def _load_board(path: Path, prefix: str) -> Board:
    from fairlead.dashboard.boards.board import load_board

    return load_board(path, prefix)

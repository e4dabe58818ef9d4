"""Little dashboards made by hand, for tests of what serves them: a store is a title, a board one callback.

As a script it serves such stores as `fairlead dashboard serve` serves real ones: SERVER SETTINGS_AS_JSON STORE...
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.errors import DashboardError


def write_store(path: Path, title: str, **more: Any) -> Path:
    """Make a store, or put another in its place in two steps that leave a moment between them."""
    made = path.with_name(f".{path.name}.new")
    made.mkdir()
    manifest = {
        "title": title, "description": f"about {title}", "kind": "classifier", "n_rows": 1234,
        "bundle_name": "little", "bundle_version": "7", "built_at": "2026-11-22T03:00:00Z", **more,
    }  # fmt: skip
    (made / "manifest.json").write_text(json.dumps(manifest))
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        path.rename(old)
    made.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    return path


def load(path: Path, prefix: str) -> Any:
    """Do what `fairlead.dashboard.boards.board.load_board` does."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DashboardError(f"{path}: no dashboard store") from error
    if "broken" in manifest:
        raise DashboardError(f"{path}: explainer.pickle is not what was built")
    if "needs" in manifest and not (path / manifest["needs"]).exists():
        raise DashboardError(f"{path}: {manifest['needs']} is missing")
    if "crashes" in manifest:
        raise KeyError(manifest["crashes"])
    time.sleep(manifest.get("takes_s", 0))
    rows = Rows(manifest["rows"]) if "rows" in manifest else None
    dashboard = _dash_app(manifest["title"], prefix, rows)
    store = types.SimpleNamespace(path=path, manifest=types.SimpleNamespace(**manifest))
    return _Board(
        name=path.name.removesuffix(".dash"),
        title=manifest["title"],
        description=manifest["description"],
        store=store,
        server=dashboard.server,
        explainer=None,
        dashboard=types.SimpleNamespace(app=dashboard),
        rows=rows,
    )


class _Board(types.SimpleNamespace):
    """What can be referred to weakly, as a real one."""


class Rows:
    """Rows from outside, whose source can be away, and which are of no use once they are closed.

    Parameters
    ----------
    trouble : with it, for as long as nobody takes it away.
    """

    def __init__(self, trouble: str | None) -> None:
        self.trouble = trouble
        self.is_closed = False
        self.n_asked = 0

    def record(self, after_s: float) -> None:
        self.n_asked += 1
        time.sleep(after_s)
        if self.is_closed:
            raise ValueError("I/O operation on closed file")

    def close(self) -> None:
        self.is_closed = True


def _dash_app(title: str, prefix: str, rows: Rows | None) -> Any:
    import dash

    app = dash.Dash("little", url_base_pathname=prefix, title=title)
    app.layout = dash.html.Div([dash.dcc.Input(id="what", value="x"), dash.html.P(id="answer")])

    @app.callback(dash.Output("answer", "children"), dash.Input("what", "value"))
    def answer(what: str) -> str:
        if what == "fail":
            raise ValueError("a fault of the page")
        if what.startswith("sleep "):
            (rows.record if rows is not None else time.sleep)(float(what.removeprefix("sleep ")))
        return f"{title}: {what} ({os.getpid()})"

    return app


def question(what: str) -> Mapping[str, Any]:
    """Give the body of a request to the callback."""
    return {
        "output": "answer.children",
        "outputs": {"id": "answer", "property": "children"},
        "inputs": [{"id": "what", "property": "value", "value": what}],
        "changedPropIds": ["what.value"],
    }


def said(answer: Mapping[str, Any]) -> str:
    """Give what the callback answered."""
    text: str = answer["response"]["answer"]["children"]
    return text


class Trial:
    """A trial in this process, which takes two turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turns = 0

    def result(self) -> tuple[bool, str | None]:
        self._turns += 1
        if self._turns == 1:
            return False, None
        try:
            load(self._path, "/")
        except (DashboardError, KeyError) as error:
            return True, str(error)
        return True, None

    def close(self) -> None:
        pass


if __name__ == "__main__":
    import msgspec

    import fairlead.dashboard.serving.following as following
    from fairlead.config import DashboardSettings
    from fairlead.dashboard import environment
    from fairlead.dashboard.serving import server, shelf

    shelf._load_board = load  # what is loaded, and how it is tried; all else is as it is
    following.Follower.__init__.__defaults__ = (Trial,)
    environment.library = lambda: None
    try:
        server.run([Path(store) for store in sys.argv[2:]], msgspec.convert(json.loads(sys.argv[1]), DashboardSettings))
    except DashboardError as error:
        sys.exit(f"fairlead: {error}")

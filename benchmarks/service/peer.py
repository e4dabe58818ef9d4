"""What a peer is: a server that can be installed, started, asked and understood. One file in `peers/` each.

Imports nothing of the other modules here, and nothing that is not in the standard library.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
ROOT = HERE.parents[1]

Record = dict[str, Any]
Role = Literal["own", "peer", "ceiling"]


@dataclass(frozen=True)
class Place:
    """Where a peer runs.

    Parameters
    ----------
    python : the interpreter of its environment.
    folder : its own, for what it writes.
    model : the pickled pipeline, trained with the scikit-learn of that environment.
    data : the customers as CSV, the target `churn` among the columns.
    port : a free one on loopback.
    """

    python: Path
    folder: Path
    model: Path
    data: Path
    port: int = 0

    def script(self, name: str) -> str:
        """Give a command that the environment has installed."""
        return str(self.python.parent / name)


def record_as_it_is(record: Record) -> Any:
    return record


def no_environ(place: Place) -> Mapping[str, str]:
    return {}


def nothing_to_prepare(place: Place) -> None:
    pass


@dataclass(frozen=True)
class Peer:
    """How to install, start, ask and understand one server.

    Parameters
    ----------
    name : what `--only` calls it.
    title : what the table calls it.
    settings : how it was set up, in words.
    command : what starts it, with `apps/` as the working directory; it ends on SIGTERM.
    path : where its predictions are.
    probability : reads the probability of churn out of the decoded answer; None for one that sends the body back.
    body : makes the JSON of one record.
    role : `own` is fairlead, `ceiling` the echo.
    requirements : for pip; none means fairlead's own environment.
    versions : packages whose versions the table names.
    prepare : makes what `command` needs, before the first start.
    environ : environment variables besides `MODEL`, the path of the pickle.
    in_turns : measured several times, in turns with the others that are.
    """

    name: str
    title: str
    settings: str
    command: Callable[[Place], list[str]]
    path: str
    probability: Callable[[Any], float] | None
    body: Callable[[Record], Any] = record_as_it_is
    role: Role = "peer"
    requirements: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    prepare: Callable[[Place], None] = nothing_to_prepare
    environ: Callable[[Place], Mapping[str, str]] = no_environ
    in_turns: bool = False


def find() -> dict[str, Peer]:
    """Import every file in `peers/`; each has one `PEER`."""
    found = {}
    for path in sorted((HERE / "peers").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[module.PEER.name] = module.PEER
    return found

"""Where the bytes of a dashboard are: in its store by part, and in each worker that shows it.

explainerdashboard's own count takes a forest for some bytes; this one weighs what is written, and asks the kernel what
a process holds. Layer L3; run as a module it is the process that is weighed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.bundle.disk import size_of
from fairlead.dashboard import environment
from fairlead.dashboard.boards import explainer_file
from fairlead.dashboard.store import BUNDLE, ROWS, Store
from fairlead.errors import DashboardError

# Attributes of an explainer, by what they are to people.
_PARTS: dict[str, tuple[str, ...]] = {
    "features": ("X", "X_background", "_X_cats"),
    "predictions": (
        "y", "_preds", "_pred_probas", "_pred_percentiles", "_pred_percentiles_raw", "_residuals", "_abs_residuals",
    ),
    "SHAP values": ("_shap_values_df", "_mean_abs_shap_df"),
    "SHAP interactions": ("_shap_interaction_values",),
    "SHAP explainer": ("_shap_explainer", "model_for_shap", "model"),
    "decision trees": ("_tree_columns",),
    "metrics": (
        "_metrics", "_classification_dfs", "_confusion_matrices", "_roc_auc_curves", "_pr_auc_curves",
        "_liftcurve_dfs", "_y_binaries", "_perm_imps",
    ),
}  # fmt: skip
_OTHER = "names and settings"


class Held(Struct, frozen=True):
    """Memory of processes that show a dashboard, in bytes, beside the libraries that all dashboards share.

    Parameters
    ----------
    loaded_bytes : what it takes to load it, once.
    worker_bytes : what each worker takes besides that has answered for it.
    """

    loaded_bytes: int
    worker_bytes: int


@dataclass(frozen=True)
class Measured:
    """Where the bytes of a dashboard are.

    Parameters
    ----------
    name : of its store.
    settings : what it was built with that weighs.
    parts : bytes in the store, by part.
    held : what it takes in memory.
    """

    name: str
    settings: Mapping[str, str]
    parts: Mapping[str, int]
    held: Held

    @property
    def total(self) -> int:
        """Bytes of the whole store."""
        return sum(self.parts.values())


def parts_of(explainer: Any, file_bytes: int) -> dict[str, int]:
    """Weigh the parts of an explainer as they are written.

    Parameters
    ----------
    file_bytes : of the whole explainer; what no part has is names and settings.
    """
    attributes = vars(explainer)
    weighed = {
        part: sum(_written(attributes[name]) for name in names if attributes.get(name) is not None)
        for part, names in _PARTS.items()
    }
    parts = {part: size for part, size in weighed.items() if size}
    # Parts that share something are weighed with it, each.
    return parts | {_OTHER: max(0, file_bytes - sum(parts.values()))}


def _written(value: Any) -> int:
    pickled, arrays = explainer_file.parts(value)
    return len(pickled) + sum(array.nbytes for array in arrays)


def measure(path: Path) -> Measured:
    """Weigh a store, and a worker that shows it.

    Raises
    ------
    DashboardError
        When it is no store, or cannot be loaded.
    """
    store = Store.open(path)
    parts = dict(store.manifest.parts)
    parts["model"] = size_of(store.path / BUNDLE)
    if rows := size_of(store.path / ROWS):
        parts["rows from outside"] = rows
    return Measured(store.name, store.manifest.settings, parts, _weighed(store.path))


def _weighed(path: Path) -> Held:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fairlead.dashboard.boards.memory", os.fspath(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    try:
        return msgspec.json.decode(done.stdout, type=Held)
    except msgspec.MsgspecError as error:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise DashboardError(f"{path}: cannot be loaded to be weighed: {last}") from error


def main(path: Path) -> None:
    """Be the process that has the libraries and loads the dashboard, and fork a worker that answers for it."""
    environment.own_process()
    out = os.dup(1)
    os.dup2(2, 1)
    environment.library()
    from fairlead.dashboard.boards.board import load_board
    from fairlead.dashboard.boards.page import Page

    settle()
    before = _private_bytes()
    board = load_board(path, "/")
    Page(board).open()
    settle()
    loaded = _private_bytes() - before
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    Page(board).open()
    os.write(out, msgspec.json.encode(Held(loaded, _private_bytes())))


def settle() -> None:
    """Give back what is free, and have the collector leave the rest alone: where it looks, workers copy pages."""
    gc.unfreeze()
    gc.collect()
    with suppress(AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()


def _private_bytes() -> int:
    """Ask the kernel for what no other process has. Source: proc_pid_smaps_rollup(5)."""
    told = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE))
    return (int(told["Private_Clean"]) + int(told["Private_Dirty"])) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What has to be so before explainerdashboard is imported, and the one door to it.

Layer L3; imports explainerdashboard when asked for it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from fairlead.extras import require

# A process forked after OpenMP has begun its threads waits for ever at its next prediction. With one, it begins none.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Set when this process is fairlead's own.
_is_own = threading.Event()


def own_process() -> None:
    """Have `library` import less: whoever calls this says that nobody else's code runs in this process.

    explainerdashboard and shap import notebooks, matplotlib and a compiler for functions that a dashboard does not
    call: a third of the time that a process takes to start.
    """
    _is_own.set()


def prepare() -> None:
    """Set the environment right: one thread for what computes, and nothing for Dash to heed.

    Dash takes its prefixes, debugging and a protocol for agents from variables, which are not meant for us.
    """
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    for name in [name for name in os.environ if name.startswith("DASH_")]:
        del os.environ[name]


def library() -> Any:
    """Import explainerdashboard.

    Raises
    ------
    MissingExtra
        When it is not installed.
    """
    prepare()
    with warnings.catch_warnings(), _left_out():
        warnings.simplefilter("ignore")  # of its own dependencies
        found = require("explainerdashboard", "dashboard")
    logging.getLogger("explainerdashboard").setLevel(logging.ERROR)
    return found


@contextmanager
def _left_out() -> Iterator[None]:
    """Keep what no dashboard uses from being imported; what was before, and what comes after, is as it is."""
    placed = {name: module for name, module in _stand_ins().items() if _is_own.is_set() and name not in sys.modules}
    sys.modules |= placed  # type: ignore[arg-type]  # None stands for what cannot be imported
    try:
        yield
    finally:
        for name, module in placed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _stand_ins() -> dict[str, ModuleType | None]:
    return {
        # Dash and shap do without, as where they are not installed.
        "IPython": None,
        "matplotlib": None,
        # What stands for the following is never called: trees are drawn by `tree_plots`, and pages shown by `serving`.
        "jupyter_dash": _module("jupyter_dash", JupyterDash=None),
        "dtreeviz": _module("dtreeviz", DTreeVizAPI=None),
        "dtreeviz.models": _module("dtreeviz.models"),
        "dtreeviz.models.shadow_decision_tree": _module("shadow_decision_tree", ShadowDecTree=None),
        # Functions that it would compile are what they are.
        "numba": _module("numba", njit=lambda function=None, **_: function or (lambda other: other)),
        "numba.typed": _module("numba.typed"),
    }


def _module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(content)
    return made

"""What options save: a store is built with each of them, aside, and weighed like the one that is there.

Layer L3.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fairlead.dashboard.boards.memory import Measured, measure
from fairlead.dashboard.building.build import Step, build
from fairlead.dashboard.building.recipe import options_of, where
from fairlead.dashboard.store import SUFFIX, Store


def compare(path: Path, changes: Mapping[str, Mapping[str, Any]], step: Step) -> list[Measured]:
    """Weigh a store as it is, and as it would be with each of some options; it stays as it is.

    Parameters
    ----------
    path : the store.
    changes : fields of `DashboardOptions` by what to call the store that is built with them.
    step : is told what is done, and what share of it (0 to 1).

    Raises
    ------
    DashboardError, SourceError, BundleError
        As `memory.measure` and `build.build`.
    """
    store = Store.open(path)
    step("weigh", 0.0)
    measured = [measure(store.path)]
    recipe = store.manifest.recipe
    with tempfile.TemporaryDirectory() as folder, where(recipe):
        for number, (name, changed) in enumerate(changes.items()):
            target = Path(folder) / f"{number}{SUFFIX}"
            options = replace(options_of(recipe), static=None, **changed)
            build(recipe.source, target, options, partial(_tell, step, name))
            step(f"{name}: weigh", 0.0)
            measured.append(replace(measure(target), name=name))
    return measured


def _tell(step: Step, name: str, what: str, share: float) -> None:
    step(f"{name}: {what}", share)

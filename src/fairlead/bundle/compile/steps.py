"""Which function compiles which class, and how a chain of steps is walked."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from fairlead.bundle.compile.columns import Columns, Compilation, Predict, Prediction, Transform
from fairlead.errors import NotCompilable


def key_of(step: object) -> str:
    """Name a step's class as the tables do: ``sklearn.StandardScaler``."""
    cls = type(step)
    return f"{cls.__module__.split('.')[0]}.{cls.__qualname__}"


@cache
def tables() -> tuple[dict[str, Transform], dict[str, Predict]]:
    """Collect `TRANSFORMS` and `PREDICTORS` of every module in this folder."""
    package = importlib.import_module(__package__)
    transforms: dict[str, Transform] = {}
    predictors: dict[str, Predict] = {}
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(info.name)
        transforms |= getattr(module, "TRANSFORMS", {})
        predictors |= getattr(module, "PREDICTORS", {})
    return transforms, predictors


def transform(step: Any, columns: Columns, compilation: Compilation, name: str = "") -> Columns:
    """Compile one transformer.

    Raises
    ------
    NotCompilable
        When no file knows the class, or its function does not cover its settings.
    """
    found = tables()[0].get(key_of(step))
    if found is None:
        raise NotCompilable(label_of(step, name), "has no compiled form")
    return found(step, columns, compilation)


def predict(step: Any, columns: Columns, compilation: Compilation, name: str = "") -> Prediction:
    """Compile the last step.

    Raises
    ------
    NotCompilable
        As `transform`.
    """
    found = tables()[1].get(key_of(step))
    if found is None:
        raise NotCompilable(label_of(step, name), "has no compiled form")
    return found(step, columns, compilation)


def label_of(step: object, name: str = "") -> str:
    """Call a step by its name in the Pipeline and its class, as far as they differ."""
    cls = type(step).__name__
    return f"{name}: {cls}" if name and name.lower() != cls.lower() else cls

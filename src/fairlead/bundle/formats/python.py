"""``module:Class``: the user's own class with a `predict` method, made without arguments.

The module is run from its source bytes, which are what the bundle carries.
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from fairlead.bundle.formats import LoadedModel, LoadRequest
from fairlead.bundle.user_code import load_module, read_source
from fairlead.errors import SourceError

SOURCES = "module:Class"
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def accepts(source: str) -> bool:
    """Whether the text has the form ``module:Class`` and no file is called that."""
    return bool(_CLASS.fullmatch(source)) and not Path(source).exists()


def load(request: LoadRequest) -> LoadedModel:
    """Run the module and make an instance.

    Raises
    ------
    SourceError
        When the module or the class is not found, fails, or cannot predict.
    """
    name, _, kind = request.source.partition(":")
    path = _locate(name, request.code)
    data = read_source(path)
    module = load_module(data, path.stem, str(path))
    return LoadedModel(_make(module, kind, path), "python", {path.name: data})


def _locate(name: str, code: Path | None) -> Path:
    last = name.rpartition(".")[2]
    if code is not None and code.stem == last:
        return code
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    for part in name.split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            raise SourceError(
                f"{name}: no module of that name in {Path.cwd()} or on sys.path: run where {last}.py is, "
                f"or give --code path/to/{last}.py"
            )
        places = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise SourceError(f"{name}: expected a module in one .py file, found {spec.origin if spec else 'nothing'}")
    return Path(spec.origin)


def _make(module: ModuleType, kind: str, path: Path) -> Any:
    found = getattr(module, kind, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise SourceError(f"{path}: no class {kind} in it, found {', '.join(classes) or 'no class at all'}")
    if not callable(getattr(found, "predict", None)):
        raise SourceError(f"{path}: {kind} has no method predict: define `def predict(self, …)`")
    try:
        return found()
    except Exception as error:  # the user's own code
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise SourceError(f"{path}: {kind}() failed ({reason}): it has to be made without arguments") from error

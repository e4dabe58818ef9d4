"""LightGBM's own text files, from `Booster.save_model`.

Source: LightGBM `src/boosting/gbdt_model_text.cpp`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlead.bundle.formats import LoadedModel, LoadRequest
from fairlead.bundle.model_file import read_file
from fairlead.bundle.skew import loading
from fairlead.errors import SourceError
from fairlead.extras import require

SOURCES = ".txt of save_model"


def accepts(source: str) -> bool:
    """Whether it is a text file whose first line is ``tree``."""
    path = Path(source)
    if path.suffix.lower() not in (".txt", ".lgb") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(5).startswith(b"tree")


def load(request: LoadRequest) -> LoadedModel:
    """Load a Booster.

    Raises
    ------
    SourceError
        When the file is cut off or not a LightGBM model.
    """
    path = Path(request.source)
    data = read_file(path)
    model, warnings = load_booster(data, path.name)
    return LoadedModel(model, "lightgbm", {path.name: data}, warnings=warnings)


def load_booster(data: bytes, what: str) -> tuple[Any, tuple[str, ...]]:
    """Load a Booster from the bytes of a file; also its warnings."""
    broken = f"{what}: expected a LightGBM model saved by save_model, got a file that is broken or cut off"
    # LightGBM reads a file without its end as a smaller model.
    if not data.startswith(b"tree") or b"\nend of trees" not in data:
        raise SourceError(broken)
    lightgbm = require("lightgbm", "lightgbm")
    try:
        with loading(what, ()) as told:
            model = lightgbm.Booster(model_str=data.decode())
    except SourceError as error:
        raise SourceError(broken) from error
    return model, tuple(dict.fromkeys(told))

"""XGBoost's own files, JSON and UBJSON, from `Booster.save_model` or an estimator's `save_model`.

Source: XGBoost documentation, "Introduction to Model IO".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fairlead.bundle.formats import LoadedModel, LoadRequest
from fairlead.bundle.model_file import read_file
from fairlead.bundle.skew import installed, loading, release
from fairlead.errors import SourceError, VersionSkew
from fairlead.extras import require

SUFFIXES = (".json", ".ubj")
SOURCES = " ".join(SUFFIXES)
_UBJ_VERSION = re.compile(rb"version\[#L.{8}((?:i.){3})", re.DOTALL)


def accepts(source: str) -> bool:
    """Whether the file's name says JSON or UBJSON."""
    path = Path(source)
    return path.suffix.lower() in SUFFIXES and path.is_file()


def load(request: LoadRequest) -> LoadedModel:
    """Load a Booster.

    Raises
    ------
    SourceError
        When the file is not an XGBoost model.
    VersionSkew
        When a newer XGBoost made it and this one cannot read it.
    """
    path = Path(request.source)
    data = read_file(path)
    model, versions, warnings = load_booster(data, path.name)
    return LoadedModel(model, "xgboost", {path.name: data}, versions, warnings=warnings)


def load_booster(data: bytes, what: str, kind: str = "Booster") -> tuple[Any, dict[str, str], tuple[str, ...]]:
    """Load a model of the class `kind` from the bytes of a file: Booster or one of the estimators."""
    made_by = _version(data, what)
    xgboost = require("xgboost", "xgboost")
    here = installed("xgboost") or installed("xgboost-cpu") or xgboost.__version__
    newer = bool(made_by) and release(made_by) > release(here)
    try:
        with loading(what, ()) as told:
            model = getattr(xgboost, kind)()
            model.load_model(bytearray(data))
    except SourceError as error:
        if newer:
            cure = f"run `pip install xgboost=={made_by}`"
            raise VersionSkew(f"{what}: made by xgboost {made_by}, which {here} cannot read: {cure}") from error
        raise SourceError(f"{what}: expected an XGBoost model, got one that is broken") from error
    if newer:
        told.append(f"{what}: made by xgboost {made_by}, loaded by {here}: its numbers may differ")
    return model, {"xgboost": made_by} if made_by else {}, tuple(dict.fromkeys(told))


def _version(data: bytes, what: str) -> str:
    """The version in the file, as text; empty when it tells none."""
    refusal = f"{what}: expected an XGBoost model saved by save_model, got other data (no `learner` in it)"
    if data[:2] == b"{L":
        if b"\x07learner{" not in data:
            raise SourceError(refusal)
        match = _UBJ_VERSION.search(data)
        return ".".join(str(number) for number in match.group(1)[1::2]) if match else ""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise SourceError(refusal) from error
    if not isinstance(document, dict) or not isinstance(document.get("learner"), dict):
        raise SourceError(refusal)
    numbers = document.get("version")
    return ".".join(str(number) for number in numbers) if isinstance(numbers, list) else ""

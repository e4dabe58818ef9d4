"""pickle and joblib files: an estimator, a Pipeline, a (DictVectorizer, estimator) pair, or the two in two files.

Nothing in the file runs before `bundle.pickles` has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fairlead.bundle.formats import VECTORIZER, LoadedModel, LoadRequest
from fairlead.bundle.model_file import read_file
from fairlead.bundle.pickles import load_pickle
from fairlead.bundle.user_code import load_module
from fairlead.errors import SourceError

SUFFIXES = (".bin", ".pkl", ".pickle", ".joblib")
SOURCES = " ".join(SUFFIXES)


def accepts(source: str) -> bool:
    """Whether the file's name says pickle or joblib."""
    path = Path(source)
    return path.suffix.lower() in SUFFIXES and path.is_file()


def load(request: LoadRequest) -> LoadedModel:
    """Check the file, load it, and tell the vectorizer from the model.

    Raises
    ------
    UnsafePickle, VersionSkew, SourceError
        Refused before anything ran; made by another scikit-learn; broken, or no model in it.
    """
    path = Path(request.source)
    data = read_file(path)
    modules = user_modules(request.code)
    found, versions, warnings = load_pickle(data, request.trust, path.name, modules)
    files = {path.name: data}
    if request.vectorizer is not None:
        found, files, more = _add_vectorizer(found, files, request, modules)
        warnings = (*warnings, *more)
    vectorizer, model = split_pair(found, path.name)
    return LoadedModel(model, "pickle", files, versions, vectorizer, warnings=tuple(dict.fromkeys(warnings)))


def user_modules(code: Path | None) -> Mapping[str, ModuleType]:
    """The user's module under its own name, and as the ``__main__`` that a training script was."""
    if code is None:
        return {}
    module = load_module(code, code.stem)
    return {code.stem: module, "__main__": module}


def split_pair(found: Any, what: str) -> tuple[Any, Any]:
    """Tell what was found as ``(vectorizer or None, model)``; a pair comes in either order.

    Raises
    ------
    SourceError
        When it is no model, saying what it is.
    """
    if isinstance(found, tuple | list) and len(found) == 2:
        vectorizers = [part for part in found if _is_vectorizer(part)]
        models = [part for part in found if _predicts(part)]
        if len(vectorizers) == 1 and len(models) == 1:
            return vectorizers[0], models[0]
    elif _predicts(found):
        return None, found
    raise SourceError(
        f"{what}: expected an estimator, a Pipeline or a (DictVectorizer, estimator) pair, "
        f"found {_describe(found)}{_cure(found)}"
    )


def _add_vectorizer(
    model: Any, files: dict[str, bytes], request: LoadRequest, modules: Mapping[str, ModuleType]
) -> tuple[tuple[Any, Any], dict[str, bytes], tuple[str, ...]]:
    assert request.vectorizer is not None
    data = read_file(request.vectorizer)
    vectorizer, _, warnings = load_pickle(data, request.trust, request.vectorizer.name, modules)
    if not _is_vectorizer(vectorizer):
        raise SourceError(f"{request.vectorizer}: expected a DictVectorizer, found {_describe(vectorizer)}")
    ((name, content),) = files.items()
    if Path(name).stem == VECTORIZER:
        name = f"model{Path(name).suffix}"
    return (vectorizer, model), {name: content, f"{VECTORIZER}{request.vectorizer.suffix}": data}, warnings


def _is_vectorizer(part: object) -> bool:
    return any(kind.__name__ == "DictVectorizer" for kind in type(part).__mro__)


def _predicts(part: object) -> bool:
    return callable(getattr(part, "predict", None)) and not isinstance(part, type)


def _describe(found: object) -> str:
    if isinstance(found, dict):
        return f"a dict with the keys {', '.join(repr(key) for key in list(found)[:10])}" if found else "an empty dict"
    if isinstance(found, tuple | list):
        inside = ", ".join(_name(part) for part in found[:5])
        return f"a {type(found).__name__} of {len(found)}: {inside}"
    return _name(found)


def _name(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__


def _cure(found: object) -> str:
    if _is_vectorizer(found):
        return ": give the estimator's file, and this one by --vectorizer"
    if isinstance(found, dict):
        return ": save the model itself, or the pair, with pickle.dump"
    if isinstance(found, tuple | list) and len(found) == 2 and any(_predicts(part) for part in found):
        return ": put the two into one Pipeline and save that"
    return ""

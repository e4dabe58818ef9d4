"""MLflow model directories, read as the YAML and files they are; MLflow itself is not needed.

Of the flavors, the one whose library saved the model is used: its file goes the same checked way as when it
comes alone. Signature and input example come along.

Source: MLflow documentation, "MLflow Models: Storage Format", "Model Signatures And Input Examples".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from fairlead.bundle.formats import LoadedModel, LoadRequest, lightgbm, onnx, xgboost
from fairlead.bundle.formats.pickle import split_pair, user_modules
from fairlead.bundle.formats.skops import load_skops
from fairlead.bundle.manifest import DESCRIPTOR
from fairlead.bundle.model_file import read_file
from fairlead.bundle.pickles import load_pickle
from fairlead.bundle.skew import SKLEARN
from fairlead.errors import SourceError

SOURCES = f"a directory with {DESCRIPTOR}"
_LIBRARIES: Final = frozenset({SKLEARN, "numpy", "pandas", "scipy", "xgboost", "lightgbm", "onnx", "catboost"})
Loaded = tuple[Any, dict[str, str], tuple[str, ...]]


def accepts(source: str) -> bool:
    """Whether it is a directory with an `MLmodel` in it."""
    return (Path(source) / DESCRIPTOR).is_file()


def load(request: LoadRequest) -> LoadedModel:
    """Load the model of a directory.

    Raises
    ------
    SourceError
        And its kinds: a flavor that is not known, a missing file, or what the file's own format says.
    """
    directory = Path(request.source)
    descriptor = _read_descriptor(directory)
    name, flavor = _choose(descriptor, directory)
    data_path = _inside(directory, flavor.get("pickled_model") or flavor.get("data"))
    data = read_file(data_path)
    found, versions, warnings = _FLAVORS[name](data, flavor, request, f"{directory.name}/{data_path.name}")
    vectorizer, model = (None, found) if isinstance(found, bytes) else split_pair(found, str(directory))
    example = _example_file(directory, descriptor)
    checked = data_path.relative_to(directory.resolve()).as_posix()
    names = [DESCRIPTOR, "requirements.txt", *example]
    return LoadedModel(
        model,
        "mlflow",
        {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()} | {checked: data},
        _required(directory) | _told(name, flavor) | versions,
        vectorizer,
        _signature(descriptor),
        _records(read_file(directory / example[0])) if example else None,
        warnings,
    )


def reopen(request: LoadRequest) -> LoadedModel:
    """Load verified files again; an ONNX graph without the library that checks it."""
    directory = Path(request.source)
    name, flavor = _choose(_read_descriptor(directory), directory)
    if name != "onnx":
        return load(request)
    return LoadedModel(read_file(_inside(directory, flavor.get("data"))), "mlflow", {})


def _read_descriptor(directory: Path) -> dict[str, Any]:
    try:
        descriptor = yaml.safe_load(read_file(directory / DESCRIPTOR))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{directory / DESCRIPTOR}: expected YAML, got other text ({error})") from error
    flavors = descriptor.get("flavors") if isinstance(descriptor, dict) else None
    if not isinstance(flavors, dict) or not all(isinstance(flavor, dict) for flavor in flavors.values()):
        raise SourceError(f"{directory / DESCRIPTOR}: expected the descriptor of an MLflow model, got no flavors")
    result: dict[str, Any] = descriptor
    return result


def _choose(descriptor: dict[str, Any], directory: Path) -> tuple[str, dict[str, Any]]:
    flavors = descriptor["flavors"]
    if "fairlead" in flavors:
        raise SourceError(f"{directory}: this is a fairlead bundle already: serve it, or build from its own source")
    for name in _FLAVORS:
        if name in flavors:
            return name, flavors[name]
    got = ", ".join(flavors) or "none"
    raise SourceError(f"{directory}: expected one of the MLflow flavors {', '.join(_FLAVORS)}, got {got}")


def _inside(directory: Path, name: object) -> Path:
    if not isinstance(name, str):
        raise SourceError(f"{directory / DESCRIPTOR}: its flavor names no model file")
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise SourceError(f"{directory / DESCRIPTOR}: its model file {name} lies outside the directory")
    return path


def _load_sklearn(data: bytes, flavor: dict[str, Any], request: LoadRequest, what: str) -> Loaded:
    form = flavor.get("serialization_format", "pickle")
    if form == "skops":
        return load_skops(data, request.trust, what, request.code)
    if form in ("pickle", "cloudpickle"):
        return load_pickle(data, request.trust, what, user_modules(request.code))
    raise SourceError(f"{what}: expected serialization pickle, cloudpickle or skops, got {form}")


def _load_xgboost(data: bytes, flavor: dict[str, Any], request: LoadRequest, what: str) -> Loaded:
    kind = str(flavor.get("model_class", "")).rpartition(".")[2]
    return xgboost.load_booster(data, what, kind if kind.startswith("XGB") and kind.isidentifier() else "Booster")


def _load_lightgbm(data: bytes, flavor: dict[str, Any], request: LoadRequest, what: str) -> Loaded:
    if data.startswith(b"tree"):
        model, warnings = lightgbm.load_booster(data, what)
        return model, {}, warnings
    return _load_sklearn(data, flavor, request, what)


def _load_onnx(data: bytes, flavor: dict[str, Any], request: LoadRequest, what: str) -> Loaded:
    onnx.check_onnx(data, what)
    return data, onnx.producer(data), ()


_FLAVORS: Final[dict[str, Callable[[bytes, dict[str, Any], LoadRequest, str], Loaded]]] = {
    "sklearn": _load_sklearn,
    "xgboost": _load_xgboost,
    "lightgbm": _load_lightgbm,
    "onnx": _load_onnx,
}


def _told(name: str, flavor: dict[str, Any]) -> dict[str, str]:
    library = {"sklearn": SKLEARN}.get(name, name)
    key = {"sklearn": "sklearn_version", "xgboost": "xgb_version", "lightgbm": "lgb_version", "onnx": "onnx_version"}
    return {library: str(flavor[key[name]])} if flavor.get(key[name]) else {}


def _required(directory: Path) -> dict[str, str]:
    path = directory / "requirements.txt"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    pins = [line.partition(";")[0].partition("==") for line in lines]
    return {name.strip(): version.strip() for name, _, version in pins if version and name.strip() in _LIBRARIES}


def _signature(descriptor: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The inputs of a column signature; a tensor's has no names and tells nothing."""
    try:
        inputs = json.loads((descriptor.get("signature") or {}).get("inputs") or "null")
    except (ValueError, TypeError, AttributeError):
        return None
    if not isinstance(inputs, list) or not inputs:
        return None
    named = all(isinstance(column, dict) and "name" in column and "tensor-spec" not in column for column in inputs)
    return inputs if named else None


def _example_file(directory: Path, descriptor: dict[str, Any]) -> list[str]:
    info = descriptor.get("saved_input_example_info")
    name = info.get("artifact_path") if isinstance(info, dict) else None
    return [name] if isinstance(name, str) and _inside(directory, name).is_file() else []


def _records(data: bytes) -> list[dict[str, Any]] | None:
    """The rows of an input example: split, records, columns or one record; None when it has no names."""
    try:
        example = json.loads(data)
    except ValueError:
        return None
    if isinstance(example, dict) and isinstance(example.get("columns"), list) and isinstance(example.get("data"), list):
        return [dict(zip(map(str, example["columns"]), row, strict=False)) for row in example["data"]]
    if isinstance(example, dict) and example and "inputs" not in example:
        lists = [value for value in example.values() if isinstance(value, list)]
        if len(lists) == len(example) and len({len(values) for values in lists}) == 1:
            return [dict(zip(example, row, strict=True)) for row in zip(*lists, strict=True)]
        return [example] if not lists else None
    if isinstance(example, list) and example and all(isinstance(row, dict) for row in example):
        return example
    return None

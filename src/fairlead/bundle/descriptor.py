"""What MLflow reads of a bundle: its part of `MLmodel`, the environment, the input example.

Layer L1, build time only.

Source: https://mlflow.org/docs/latest/ml/model/#storage-format and ``mlflow.types.schema``
"""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from msgspec.structs import replace

from fairlead.bundle.manifest import Manifest, encode_descriptor
from fairlead.bundle.read import EXAMPLE
from fairlead.schema import Feature

_TYPES = {"bool": "boolean", "int": "long", "float": "double", "string": "string", "datetime": "datetime"}
_CORE = ("numpy", "onnxruntime", "msgspec")
_NATIVE = ("scikit-learn", "scipy", "pandas")
# Libraries of models by what they are imported as; one that a native bundle's files name has to be installed.
_BY_IMPORT = {
    "xgboost": ("xgboost", "xgboost-cpu"),
    "lightgbm": ("lightgbm",),
    "catboost": ("catboost",),
    "skops": ("skops",),
    "onnx": ("onnx",),
}


def companions(manifest: Manifest, example: dict[str, Any], original: dict[str, bytes]) -> dict[str, bytes]:
    """Make the small files that stand beside the model; `original` is its own files."""
    split = {"columns": list(example), "data": [list(example.values())]}
    python_env = f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n"
    return {
        EXAMPLE: json.dumps(split).encode(),
        "requirements.txt": "".join(f"{one}\n" for one in _requirements(manifest, original)).encode(),
        "python_env.yaml": python_env.encode(),
    }


def finish(manifest: Manifest, files: dict[str, bytes]) -> tuple[Manifest, bytes]:
    """Digest every file, and write the descriptor that holds the digests."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    manifest = replace(manifest, files=digests)
    return manifest, encode_descriptor(manifest, _mlflow_part(manifest))


def _mlflow_part(manifest: Manifest) -> dict[str, Any]:
    return {
        "flavors": {
            "python_function": {
                "loader_module": "fairlead.bundle.pyfunc",
                "python_version": platform.python_version(),
                "env": {"virtualenv": "python_env.yaml"},
            }
        },
        "signature": {"inputs": json.dumps([_column(feature) for feature in manifest.schema.features])},
        "saved_input_example_info": {
            "artifact_path": EXAMPLE,
            "type": "dataframe",
            "pandas_orient": "split",
        },
    }


def _column(feature: Feature) -> dict[str, Any]:
    # MLflow's long takes no column with nulls and its double none of 64-bit integers, so it leaves the check to us.
    kind = "any" if feature.type == "int" and feature.nullable else _TYPES[feature.type]
    return {"type": kind, "name": feature.name, "required": not feature.nullable}


def _requirements(manifest: Manifest, original: dict[str, bytes]) -> list[str]:
    names = list(_CORE)
    if manifest.engine == "native" and manifest.kind != "function":
        names += _NATIVE
        for library, packages in _BY_IMPORT.items():
            if library == manifest.origin.format or any(library.encode() in data for data in original.values()):
                names += packages
    return [f"fairlead=={manifest.fairlead_version}", *(f"{name}=={version(name)}" for name in names if _is_here(name))]


def _is_here(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True

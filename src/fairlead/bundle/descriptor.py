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
from fairlead.schema import Feature

_TYPES = {"bool": "boolean", "int": "long", "float": "double", "string": "string", "datetime": "datetime"}
_CORE = ("numpy", "onnxruntime", "msgspec", "pyyaml")
_NATIVE = ("scikit-learn", "pandas", "pyarrow", "skops", "joblib")


def companions(manifest: Manifest, example: dict[str, Any]) -> dict[str, bytes]:
    """Make the small files that stand beside the model."""
    split = {"columns": list(example), "data": [list(example.values())]}
    python_env = f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n"
    return {
        "input_example.json": json.dumps(split).encode(),
        "requirements.txt": "".join(f"{one}\n" for one in _requirements(manifest)).encode(),
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
            "artifact_path": "input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        },
    }


def _column(feature: Feature) -> dict[str, Any]:
    # MLflow refuses an integer column with nulls, which pandas holds as floats, so it is told double.
    kind = "double" if feature.type == "int" and feature.nullable else _TYPES[feature.type]
    return {"type": kind, "name": feature.name, "required": not feature.nullable}


def _requirements(manifest: Manifest) -> list[str]:
    names = list(_CORE)
    if manifest.engine == "native":
        names += _NATIVE
        names += ["xgboost", "lightgbm"] if manifest.origin.model.startswith(("xgboost", "lightgbm")) else []
    found = [f"fairlead=={manifest.fairlead_version}"]
    for name in names:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found

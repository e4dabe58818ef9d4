"""The bundles a server was given: loaded to be served, or verified by a parent that serves nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead.bundle.read import open_bundle
from fairlead.errors import ServeError

if TYPE_CHECKING:
    from fairlead.predict.predictor import Predictor

EXAMPLE = "input_example.json"


@dataclass(frozen=True)
class Served:
    """One bundle of a server.

    Parameters
    ----------
    name, version, engine : as the bundle says.
    predictor : None in a parent, which has verified the bundle but does not run it.
    example : a record that the model accepts, None when the bundle holds none.
    """

    name: str
    version: str
    engine: str
    predictor: Predictor | None = None
    example: dict[str, Any] | None = None

    @property
    def predict_path(self) -> str:
        """Where its predictions are."""
        return predict_path(self.name)


def load_all(bundles: Sequence[Path]) -> list[Served]:
    """Verify and load bundles.

    Raises
    ------
    BundleError
        When one is no bundle or was changed.
    ServeError
        When two models have one name.
    """
    # Here, so that a parent that only verifies does not import what computes.
    from fairlead.predict.predictor import load

    served = []
    for path in bundles:
        predictor = load(path)
        engine = predictor.manifest.engine
        served.append(Served(predictor.name, predictor.version, engine, predictor, read_example(path)))
    check_names([one.name for one in served])
    return served


def verify_all(bundles: Sequence[Path]) -> list[Served]:
    """Verify bundles without loading their models; raises what `load_all` raises."""
    manifests = [open_bundle(path).manifest for path in bundles]
    check_names([manifest.name for manifest in manifests])
    return [Served(manifest.name, manifest.version, manifest.engine) for manifest in manifests]


def read_example(bundle: Path) -> dict[str, Any] | None:
    """Give the first record of a bundle's input example, as records or in MLflow's split form."""
    path = bundle / EXAMPLE
    if not path.is_file():
        return None
    data = msgspec.json.decode(path.read_bytes())
    if isinstance(data, dict) and data.keys() >= {"columns", "data"}:
        data = [dict(zip(data["columns"], row, strict=True)) for row in data["data"]]
    first = data[0] if isinstance(data, list) and data else data
    return first if isinstance(first, dict) else None


def predict_path(name: str) -> str:
    """Give the path of a model's predictions; `build` allows no name that a URL would have to escape."""
    return f"/models/{name}/predict"


def check_names(names: Sequence[str]) -> None:
    """Refuse to serve nothing, or two models under one name.

    Raises
    ------
    ServeError
        Naming the model that is there twice.
    """
    if not names:
        raise ServeError("no model to serve: name at least one bundle")
    for name in names:
        if names.count(name) > 1:
            raise ServeError(f"{name}: two bundles have this name: build one of them again with another `--name`")

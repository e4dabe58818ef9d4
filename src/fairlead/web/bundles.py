"""The bundles a server was given: loaded to be served, or verified by a parent that serves nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.bundle.read import open_bundle
from fairlead.errors import ServeError

if TYPE_CHECKING:
    from fairlead.predict.predictor import Predictor


@dataclass(frozen=True)
class Served:
    """One bundle of a server.

    Parameters
    ----------
    name, version, engine : as the bundle says.
    predictor : None in a parent, which has verified the bundle but does not run it.
    example : a record that the model accepts; None in such a parent.
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
    from fairlead.predict.predictor import predictor_of

    served = []
    for path in bundles:
        bundle = open_bundle(path)
        predictor = predictor_of(bundle)
        served.append(Served(predictor.name, predictor.version, bundle.manifest.engine, predictor, bundle.example()))
    check_names([one.name for one in served])
    return served


def verify_all(bundles: Sequence[Path]) -> list[Served]:
    """Verify bundles without loading their models; raises what `load_all` raises."""
    manifests = [open_bundle(path).manifest for path in bundles]
    check_names([manifest.name for manifest in manifests])
    return [Served(manifest.name, manifest.version, manifest.engine) for manifest in manifests]


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

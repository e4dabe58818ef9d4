"""fairlead: a trained tabular model becomes a verified bundle, and the bundle a service.

The public names are imported on first use, so that ``import fairlead`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.bundle.build import BuildOptions as BuildOptions
    from fairlead.bundle.build import BuildReport as BuildReport
    from fairlead.bundle.build import build as build
    from fairlead.client import AsyncClient as AsyncClient
    from fairlead.client import Client as Client
    from fairlead.client import DeadlineExceeded as DeadlineExceeded
    from fairlead.client import RequestFailed as RequestFailed
    from fairlead.client import ServiceUnavailable as ServiceUnavailable
    from fairlead.errors import BundleError as BundleError
    from fairlead.errors import ConfigError as ConfigError
    from fairlead.errors import FairleadError as FairleadError
    from fairlead.errors import InvalidRecords as InvalidRecords
    from fairlead.errors import MissingExtra as MissingExtra
    from fairlead.errors import ModelFailed as ModelFailed
    from fairlead.errors import NotCompilable as NotCompilable
    from fairlead.errors import NotFitted as NotFitted
    from fairlead.errors import SchemaError as SchemaError
    from fairlead.errors import ServeError as ServeError
    from fairlead.errors import SourceError as SourceError
    from fairlead.errors import UnsafePickle as UnsafePickle
    from fairlead.errors import VersionSkew as VersionSkew
    from fairlead.predict.predictor import Outcome as Outcome
    from fairlead.predict.predictor import Predictor as Predictor
    from fairlead.predict.predictor import load as load
    from fairlead.schema import Feature as Feature
    from fairlead.schema import Output as Output
    from fairlead.schema import Problem as Problem
    from fairlead.schema import Schema as Schema

__version__ = "0.1.0"

_ERRORS = (
    "BundleError ConfigError FairleadError InvalidRecords MissingExtra ModelFailed NotCompilable NotFitted "
    "SchemaError ServeError SourceError UnsafePickle VersionSkew"
)
_CLIENT = "AsyncClient Client DeadlineExceeded RequestFailed ServiceUnavailable"
_HOMES = {
    **dict.fromkeys(("BuildOptions", "BuildReport", "build"), "fairlead.bundle.build"),
    **dict.fromkeys(_CLIENT.split(), "fairlead.client"),
    **dict.fromkeys(_ERRORS.split(), "fairlead.errors"),
    **dict.fromkeys(("Outcome", "Predictor", "load"), "fairlead.predict.predictor"),
    **dict.fromkeys(("Feature", "Output", "Problem", "Schema"), "fairlead.schema"),
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'fairlead' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Where a model may come from: a path, an MLflow registry or run, S3, an address with a digest.

`parse` reads what a user wrote, `resolve` asks once what it means now, and the `Store` of the answer hands out the
files. Nothing here writes to disk. One file a kind; libraries are imported when a kind is used. Layer L1; may import
errors, extras and config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fairlead.bundle.sources import https, mlflow_artifacts, models, runs, s3
from fairlead.bundle.sources.archives import is_archive, unpack
from fairlead.bundle.sources.defaults import default_source
from fairlead.bundle.sources.local import LocalSource
from fairlead.bundle.sources.store import NoResume, RemoteFile, Resolved, Source, Store
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

__all__ = [
    "LocalSource",
    "NoResume",
    "RemoteFile",
    "Resolved",
    "Source",
    "Store",
    "default_source",
    "is_archive",
    "parse",
    "resolve",
    "unpack",
]

_KINDS: dict[str, tuple[str, Callable[[str], Source]]] = {
    "models": (models.FORM, models.parse),
    "runs": (runs.FORM, runs.parse),
    "experiments": (runs.EXPERIMENT_FORM, runs.parse_experiment),
    "s3": (s3.FORM, s3.parse),
    "mlflow-artifacts": (mlflow_artifacts.FORM, mlflow_artifacts.parse),
    "https": (https.FORM, https.parse),
    "http": (https.FORM, https.parse),
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def parse(text: str) -> Source:
    """Read what a user wrote as a source; asks nobody. What has no ``scheme:/`` is a path.

    Raises
    ------
    SourceError
        For an unknown kind or a wrong form; lists the right ones.
    """
    found = _SCHEME.match(text)
    if found is None:
        if not text.strip():
            raise SourceError(f"expected where a model is, got nothing: name a path, or {_forms()}")
        return LocalSource(Path(text))
    scheme = found[1].lower()
    if scheme == "file":
        return LocalSource(_path(text))
    if scheme not in _KINDS:
        raise SourceError(f"{found[1]}:/…: expected a path, or {_forms()}")
    return _KINDS[scheme][1](scheme + text[len(scheme) :])


def _path(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise SourceError(f"{text}: expected a path of this machine, as in file:///models/churn")
    return Path(unquote(parts.path))


def _forms() -> str:
    return ", ".join(dict.fromkeys(form for form, _ in _KINDS.values()))


def resolve(source: Source, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
    """Ask the registry or the store what a source means now.

    Parameters
    ----------
    settings : bounds every wait.
    environ : where credentials and addresses come from, by the names that MLflow and AWS gave them.

    Raises
    ------
    SourceUnavailable
        When nobody answers, in bounded time, or with a fault of theirs.
    SourceDenied
        When credentials are missing or refused.
    SourceError
        When there is no such alias, version, run, bucket or key.
    """
    return source.resolve(settings, environ)

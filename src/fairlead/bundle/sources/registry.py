"""An MLflow registry and the tracking server beside it, however they are reached.

Over http(s) by their REST API, since importing MLflow costs more than most answers; else, as for a database or
Databricks, through the MLflow library. Layer L1.
"""

from __future__ import annotations

import configparser
import difflib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fairlead.bundle.sources.transport import Access
from fairlead.errors import SourceError, SourceUnavailable

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

USERNAME = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"
TOKEN = "MLFLOW_TRACKING_TOKEN"
# Ways to come in that are plugins of the MLflow library, or that it implements itself.
_ONLY_BY_LIBRARY = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH")


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Parameters
    ----------
    number : as the registry counts.
    source : where its files are, or the model that it was made of.
    created_ms : tells it from one of the same name and number that was deleted before.
    """

    name: str
    number: str
    source: str
    created_ms: int


@dataclass(frozen=True)
class Run:
    """A run of an experiment.

    Parameters
    ----------
    model_ids : of the models that it logged, the newest first.
    """

    run_id: str
    experiment_id: str
    artifact_uri: str
    model_ids: tuple[str, ...] = ()


class Registry(Protocol):
    """What is asked of MLflow. A thing that is not there is a `SourceError` which says what there is instead."""

    where: str
    """Its address, without secrets."""

    tracking_uri: str
    """Through which proxied artifacts are read."""

    def by_alias(self, name: str, alias: str) -> Version: ...

    def by_number(self, name: str, number: str) -> Version: ...

    def newest(self, name: str, stage: str | None) -> Version:
        """Give the newest version, of one stage or of all."""
        ...

    def download_uri(self, version: Version) -> str: ...

    def run(self, run_id: str) -> Run: ...

    def finished_runs(self, experiment: str) -> Iterable[Run]:
        """Give the finished runs of an experiment, the newest first."""
        ...

    def logged_model(self, run: Run, name: str) -> str | None:
        """Give the id of the model that a run logged by this name, if it did; MLflow 3 keeps such beside the run."""
        ...

    def logged_model_uri(self, model_id: str) -> str: ...


def connect(settings: CacheSettings, environ: Mapping[str, str]) -> Registry:
    """Find the registry that the environment names; nobody is asked yet.

    Raises
    ------
    SourceError
        When it names none.
    """
    tracking = environ.get("MLFLOW_TRACKING_URI", "").strip()
    registry = environ.get("MLFLOW_REGISTRY_URI", "").strip() or tracking
    if not registry:
        raise SourceError(
            "expected the address of MLflow in MLFLOW_TRACKING_URI, as in http://localhost:5000 or "
            "sqlite:///mlflow.db, got nothing: set it"
        )
    tracking = tracking or registry
    if is_http(tracking) and is_http(registry) and not any(environ.get(name) for name in _ONLY_BY_LIBRARY):
        from fairlead.bundle.sources.registry_rest import RestRegistry

        return RestRegistry(tracking, registry, settings, environ)
    from fairlead.bundle.sources.registry_library import LibraryRegistry

    return LibraryRegistry(tracking, registry)


def is_http(uri: str) -> bool:
    """Whether an address is one of the web."""
    return uri.lower().startswith(("http://", "https://"))


def access(environ: Mapping[str, str]) -> Access:
    """Give the credentials for an MLflow server, found where the MLflow library finds them.

    Source: mlflow/utils/credentials.py and mlflow/utils/rest_utils.py of MLflow 3.

    Raises
    ------
    SourceError
        When the file of authorities to trust cannot be read.
    """
    import base64

    file = Path(environ.get("HOME", "~")).expanduser() / ".mlflow" / "credentials"
    kept = _credentials_file(file)
    username = environ.get(USERNAME) or kept.get(USERNAME.lower())
    password = environ.get(PASSWORD) or kept.get(PASSWORD.lower())
    headers = {}
    found = ""
    if username and password:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        found = f"{USERNAME} and {PASSWORD}" if environ.get(PASSWORD) else str(file)
    elif environ.get(TOKEN):
        headers["Authorization"] = f"Bearer {environ[TOKEN]}"
        found = TOKEN
    if environ.get("MLFLOW_WORKSPACE", "").strip():
        headers["X-MLFLOW-WORKSPACE"] = environ["MLFLOW_WORKSPACE"].strip()
    looked = f"{USERNAME} and {PASSWORD} (or the file {file}), or {TOKEN}"
    return Access(headers, _verify(environ), found, looked)


def _credentials_file(path: Path) -> Mapping[str, str]:
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(path)
    except (configparser.Error, UnicodeDecodeError):
        return {}
    return config["mlflow"] if config.has_section("mlflow") else {}


def _verify(environ: Mapping[str, str]) -> ssl.SSLContext | bool:
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    for name in ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"):
        path = environ.get(name)
        if path:
            try:
                folder = Path(path).is_dir()
                return ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
            except (OSError, ssl.SSLError) as error:
                raise SourceError(f"{name}: expected a file of certificates, PEM, at {path}: {error}") from error
    return True


def ready(status: str, name: str, number: str) -> None:
    """Refuse a version that the registry did not finish, told by its status.

    Raises
    ------
    SourceUnavailable
        While it is being registered.
    SourceError
        When that failed.
    """
    if status == "PENDING_REGISTRATION":
        raise SourceUnavailable(f"models:/{name}/{number}: is still being registered: try again later")
    if status not in ("READY", ""):
        raise SourceError(f"models:/{name}/{number}: its registration failed ({status}): register it again")


def no_version(place: str, where: str, aliases: Mapping[str, str], versions: Iterable[str], wanted: str) -> SourceError:
    """Say that a model has no such version, and what it has.

    Parameters
    ----------
    place : what was asked for, as the user writes it.
    where : the registry.
    aliases : versions by alias.
    wanted : the alias, version or stage.
    """
    told = [f"{alias} (version {version})" for alias, version in aliases.items()]
    return SourceError(
        f"{place}: {where} has the model, but not this version of it "
        f"({_list('aliases', told)}; {_list('versions', versions)}){_near(wanted, aliases)}"
    )


def no_such(what: str, place: str, where: str, names: Iterable[str], wanted: str) -> SourceError:
    """Say that there is no such model or experiment, and what there is.

    Parameters
    ----------
    what : as in ``registered model``.
    """
    known = list(names)
    return SourceError(f"{place}: no such {what} at {where} ({_list(what + 's', known)}){_near(wanted, known)}")


def _list(what: str, names: Iterable[str]) -> str:
    known = list(names)
    return f"{what}: {', '.join(known[:20]) or 'none'}{', …' if len(known) > 20 else ''}"


def _near(wanted: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted, list(known), 1)
    return f": did you mean {near[0]}?" if near else ""

"""What a run logged: `runs:/ID/PATH`, and the newest model of an experiment: `experiments:/NAME`.

Layer L1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fairlead.bundle.sources import artifacts, registry
from fairlead.bundle.sources.registry import Registry, Run
from fairlead.bundle.sources.store import RemoteFile, Resolved, Store, at, fingerprint
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

FORM = "runs:/ID/PATH"
EXPERIMENT_FORM = "experiments:/NAME"
_MODEL = "model"
_RUNS = 100


@dataclass(frozen=True)
class RunSource:
    """A model or a file that a run logged.

    Parameters
    ----------
    path : below the run's artifacts.
    """

    run_id: str
    path: str

    @property
    def text(self) -> str:
        return f"runs:/{self.run_id}/{self.path}"

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        asked = registry.connect(settings, environ)
        try:
            store, files = _logged(asked.run(self.run_id), self.path, asked, settings, environ)
        except SourceError as error:
            raise at(self.text, error) from error
        key = f"{self.text} at {asked.where} {fingerprint(files)}"
        return Resolved(self.text, key, PurePosixPath(self.path).stem, None, store)


@dataclass(frozen=True)
class ExperimentSource:
    """The model of an experiment's newest finished run that has one."""

    name: str

    @property
    def text(self) -> str:
        return f"experiments:/{self.name}"

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        asked = registry.connect(settings, environ)
        for run in islice(asked.finished_runs(self.name), _RUNS):
            try:
                store, files = self._model(run, asked, settings, environ)
            except (SourceUnavailable, SourceDenied):
                raise
            except SourceError:
                continue  # this run logged no model
            key = f"runs:/{run.run_id} at {asked.where} {fingerprint(files)}"
            return Resolved(self.text, key, PurePosixPath(self.name).name, None, store)
        raise SourceError(
            f"{self.text}: none of the {_RUNS} newest finished runs has a model at {_MODEL}: "
            f"log one as {_MODEL}, or name its run as {FORM}"
        )

    def _model(
        self, run: Run, asked: Registry, settings: CacheSettings, environ: Mapping[str, str]
    ) -> tuple[Store, list[RemoteFile]]:
        if not run.model_ids:
            return _files(f"{run.artifact_uri}/{_MODEL}", asked, settings, environ)
        return _files(asked.logged_model_uri(run.model_ids[0]), asked, settings, environ)


def parse(text: str) -> RunSource:
    """Read ``runs:/ID/PATH``.

    Raises
    ------
    SourceError
        For a wrong form.
    """
    run_id, _, path = text.removeprefix("runs:/").partition("/")
    parts = path.strip("/").split("/")
    if not run_id or not all(parts) or ".." in parts or "." in parts:
        raise SourceError(f"{text}: expected {FORM}, as in runs:/0a1b2c3d/model")
    return RunSource(run_id, "/".join(parts))


def parse_experiment(text: str) -> ExperimentSource:
    """Read ``experiments:/NAME``.

    Raises
    ------
    SourceError
        When the name is missing.
    """
    name = text.removeprefix("experiments:/")
    if not name.strip():
        raise SourceError(f"{text}: expected {EXPERIMENT_FORM}")
    return ExperimentSource(name)


def _logged(
    run: Run, path: str, asked: Registry, settings: CacheSettings, environ: Mapping[str, str]
) -> tuple[Store, list[RemoteFile]]:
    """Find what a run logged: since MLflow 3 a model lies beside the run, and is known by its name."""
    name, _, rest = path.partition("/")
    model_id = asked.logged_model(run, name)
    if model_id is None:
        return _files(f"{run.artifact_uri}/{path}", asked, settings, environ)
    uri = asked.logged_model_uri(model_id)
    return _files(f"{uri}/{rest}" if rest else uri, asked, settings, environ)


def _files(
    uri: str, asked: Registry, settings: CacheSettings, environ: Mapping[str, str]
) -> tuple[Store, list[RemoteFile]]:
    store = artifacts.ArtifactStore(lambda: artifacts.store_at(uri, asked, settings, environ))
    return store, store.files()

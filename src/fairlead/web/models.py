"""The models that a server serves: loaded, measured, and each with its queue.

A parent that only supervises verifies the bundles and loads none, see `verify`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead.bundle.manifest import DESCRIPTOR, decode_descriptor
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.config import CacheSettings, ModelSettings, is_address
from fairlead.errors import BundleError, ServeError
from fairlead.repository.deployments import Deployment, Role, Variant
from fairlead.repository.finder import default_name, deployment_of, is_bundle

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics
    from fairlead.monitor.tracing import Tracer
    from fairlead.predict.intake import Intake
    from fairlead.web.batching import Batcher
    from fairlead.web.calls import Call
    from fairlead.web.runners import Running

# However long a model takes to load, the next change has to wait for it; after this it is given up.
LOAD_TIMEOUT_S = 120.0

logger = logging.getLogger("fairlead.web")


class Model:
    """A model that answers.

    Parameters
    ----------
    name : under which it is served.
    variant : the bundle.
    intake : checks its records.
    batcher : the queue in front of its engine.
    example : a record that it accepts; None when the bundle has none.
    unseen : gives how often a value outside the categories came, by feature.
    """

    def __init__(
        self,
        name: str,
        variant: Variant,
        intake: Intake,
        batcher: Batcher,
        example: dict[str, Any] | None,
        unseen: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.unseen = unseen
        self.name = name
        self.variant = variant
        self.version = variant.version
        self.intake = intake
        self.batcher = batcher
        self.example = example
        self._told_ignored = 0
        self._told_unseen: dict[str, int] = {}

    def observe(self, metrics: Metrics | None, tracer: Tracer | None) -> None:
        """Have the batches of this model counted."""
        if metrics is not None:
            metrics.model_info(self.name, self.version, self.variant.engine, self.variant.digest)

        def on_batch(n_rows: int, took_ns: int, calls: Sequence[Call]) -> None:
            if metrics is not None:
                metrics.batch(self.name, self.version, n_rows, took_ns)
                metrics.queue_rows(self.name, self.version, self.batcher.queued_rows)
            if tracer is not None:
                tracer.batch(self.name, self.version, n_rows, took_ns, [call.trace for call in calls])

        self.batcher.on_batch = on_batch

    def tell(self, metrics: Metrics) -> None:
        """Pass on what was counted elsewhere since the last time."""
        metrics.queue_rows(self.name, self.version, self.batcher.queued_rows)
        ignored = self.intake.counts.ignored_keys
        if ignored > self._told_ignored:
            metrics.ignored_keys(self.name, self.version, ignored - self._told_ignored)
            self._told_ignored = ignored
        for feature, count in self.unseen().items():
            told = self._told_unseen.get(feature, 0)
            if count > told:
                metrics.unseen(self.name, self.version, feature, count - told)
                self._told_unseen[feature] = count

    @property
    def is_ready(self) -> bool:
        """Whether its engine answers, or would be loaded by a request."""
        return self.batcher.is_ready


@dataclass(frozen=True)
class Entry:
    """What a process has under one name.

    Parameters
    ----------
    deployment : what it is to have.
    models : those that answer, by their roles; the engine of a lazy one may be away.
    """

    deployment: Deployment
    models: Mapping[Role, Model]

    @property
    def stable(self) -> Model | None:
        """What answers, when anything does."""
        return self.models.get("stable")


@dataclass(frozen=True)
class Loader:
    """Loads bundles for one process.

    Parameters
    ----------
    max_queue_rows : rows that may wait for each model.
    run_directory : where the processes of isolated models are found.
    """

    max_queue_rows: int
    run_directory: Path | None = None

    def load(self, deployment: Deployment, role: Role) -> Model:
        """Verify and load the bundle that has a role in a deployment; a lazy one is verified when it is loaded.

        Raises
        ------
        BundleError
            When it is none, or was changed since the deployment was made.
        ModelFailed
            When the model cannot predict its own example.
        """
        variant = deployment.variant(role)
        assert variant is not None
        is_loaded_later = deployment.is_lazy and not self._processes(deployment, role)
        return self.model_of(deployment, role, _glanced(variant) if is_loaded_later else _opened(variant))

    def model_of(self, deployment: Deployment, role: Role, bundle: Bundle) -> Model:
        """Make the model of a bundle, loaded unless it is lazy; raises what `load` does."""
        # Here, so that a parent that only verifies does not import what computes.
        from fairlead.predict.intake import Intake
        from fairlead.web.batching import Batcher

        name, variant = deployment.name, Variant.of(bundle)
        bundle = _named(bundle, name)
        example = bundle.example()
        intake = Intake(bundle.manifest, bundle.digest)
        if processes := self._processes(deployment, role):
            return Model(name, variant, intake, self._isolated(name, bundle, processes), example)
        if deployment.is_lazy:
            from fairlead.web.lazy import LazyBatcher

            file_bytes = sum((bundle.path / file).stat().st_size for file in bundle.manifest.files)
            load = partial(_load_again, name, variant, intake)
            lazy = LazyBatcher(name, variant, file_bytes, load, self.max_queue_rows)
            return Model(name, variant, intake, lazy, example, lazy.runner.unseen)
        running = _run(bundle, example, intake)
        batcher = Batcher(running.runner, running.cost, self.max_queue_rows)
        return Model(name, variant, intake, batcher, example, running.unseen)

    def _processes(self, deployment: Deployment, role: Role) -> range:
        """Number the processes that a model runs in, beside this one."""
        return range(0) if self.run_directory is None else deployment.processes_of(role)

    def _isolated(self, name: str, bundle: Bundle, processes: range) -> Batcher:
        """Make the queue of a model that runs elsewhere: here its records are only checked."""
        from fairlead.web.batching import Batcher
        from fairlead.web.isolation import ProcessRunner, socket_path
        from fairlead.web.runners import LOOP_LIMIT_NS, Cost

        assert self.run_directory is not None
        paths = [socket_path(self.run_directory, name, bundle.digest, number) for number in processes]
        runner = ProcessRunner(paths, bundle.digest)
        batcher = Batcher(runner, Cost(0.0, LOOP_LIMIT_NS), self.max_queue_rows)
        runner.on_change = batcher.slots_changed
        return batcher


def _opened(variant: Variant) -> Bundle:
    """Open a bundle that is to be loaded."""
    if variant.engine == "onnx":
        # What a compiled model is made of is verified as it is read; the rest, the original model above all, is not.
        return _glanced(variant)
    bundle = open_bundle(Path(variant.path))
    if bundle.digest != variant.digest:
        raise BundleError(_changed(variant))
    return bundle


def _glanced(variant: Variant) -> Bundle:
    """Open a bundle by what it says of itself alone: all else was verified before, and will be when it is loaded."""
    descriptor = Path(variant.path) / DESCRIPTOR
    try:
        data = descriptor.read_bytes()
    except OSError as error:
        raise BundleError(f"{descriptor}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != variant.digest:
        raise BundleError(_changed(variant))
    return Bundle(Path(variant.path), decode_descriptor(data, str(descriptor)), variant.digest)


def _changed(variant: Variant) -> str:
    return f"{variant.path}: changed since it was taken into service: load {variant.name} again"


def _named(bundle: Bundle, name: str) -> Bundle:
    """Give a bundle the name under which it is served."""
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=name))


def _load_again(name: str, variant: Variant, intake: Intake) -> Running:
    """Load a bundle that is served lazily."""
    bundle = _named(_opened(variant), name)
    return _run(bundle, bundle.example(), intake)


def _run(bundle: Bundle, example: dict[str, Any], intake: Intake) -> Running:
    """Load a bundle, and measure where its engine is best run."""
    from fairlead.predict.predictor import predictor_of
    from fairlead.web.runners import LoopRunner, Running, ThreadRunner, place

    predictor = predictor_of(bundle, intake)
    placed = place(predictor, example)
    logger.info("%s %s: %s", bundle.manifest.name, bundle.manifest.version, placed)
    runner = LoopRunner(predictor) if placed.place == "loop" else ThreadRunner(predictor)
    return Running(runner, placed.cost, lambda: predictor.engine.unseen)


def expanded(models: Sequence[ModelSettings]) -> list[ModelSettings]:
    """Put the bundles in a directory of bundles in its place; these are loaded when they are first asked for."""
    found = []
    for settings in models:
        bundles = [] if is_address(settings.source) else bundles_in(Path(settings.source))
        found += [msgspec.structs.replace(settings, source=str(path), name=None, lazy=True) for path in bundles]
        found += [] if bundles else [settings]
    return found


def brought(models: Sequence[ModelSettings], cache: CacheSettings) -> list[ModelSettings]:
    """Bring models here that are elsewhere, or no bundles, and wait for them; raises `SourceError`s."""
    found = []
    for settings in models:
        if not is_bundle(settings.source):
            from fairlead.bundle.obtain import Silent, obtain

            had = obtain(settings.source, cache, os.environ, Silent())
            for warning in had.warnings:
                logger.warning("%s", warning)
            name = settings.name or default_name(settings.source)
            settings = msgspec.structs.replace(settings, source=str(had.path), name=name)
        found.append(settings)
    return found


def bundles_in(directory: Path) -> list[Path]:
    """List the bundles in a directory that is none itself."""
    if (directory / DESCRIPTOR).exists():
        return []
    return sorted(path.parent for path in directory.glob(f"*/{DESCRIPTOR}") if not path.parent.name.startswith("."))


def load_all(models: Sequence[ModelSettings], loader: Loader) -> list[Entry]:
    """Verify and load bundles that are here; the lazy ones are loaded later.

    Raises
    ------
    BundleError
        When one is no bundle or was changed.
    ServeError
        When two models have one name.
    """
    entries = []
    for settings in models:
        bundle = open_bundle(Path(settings.source))
        deployment = deployment_of(settings, bundle)
        entries.append(Entry(deployment, {"stable": loader.model_of(deployment, "stable", bundle)}))
    check_names([entry.deployment.name for entry in entries])
    return entries


def plan_all(models: Sequence[ModelSettings]) -> list[Deployment]:
    """Verify bundles that are here, without loading their models; raises what `load_all` raises.

    Those that are watched are brought in later, like those that are elsewhere: what is served of them is a copy.
    """
    deployments = []
    for settings in models:
        bundle = open_bundle(Path(settings.source)) if is_bundle(settings.source) else None
        deployments.append(deployment_of(settings, bundle, bundle is None or settings.refresh_s is not None))
    check_names([deployment.name for deployment in deployments])
    kept = [deployment.name for deployment in deployments if deployment.is_lazy and deployment.processes]
    if kept:
        logger.warning("%s: isolated, so their processes run from the start on and are not let go", ", ".join(kept))
    return deployments


def load_planned(deployments: Sequence[Deployment], loader: Loader) -> list[Entry]:
    """Load the bundles of deployments; raises as `Loader.load`."""
    if any(one.is_pending for one in deployments):
        # What is to come finds it imported: that takes longer than to load most models.
        import fairlead.predict.predictor  # noqa: F401  # for its being imported
    return [Entry(one, {role: loader.load(one, role) for role, _ in one.variants()}) for one in deployments]


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

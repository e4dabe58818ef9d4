"""The models that a server serves: loaded, measured, and each with its queue.

A parent that only supervises verifies the bundles and loads none, see `verify`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead.bundle.read import Bundle, open_bundle
from fairlead.config import ModelSettings
from fairlead.errors import ServeError

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics
    from fairlead.monitor.tracing import Tracer
    from fairlead.predict.intake import Intake
    from fairlead.web.batching import Batcher
    from fairlead.web.calls import Call

logger = logging.getLogger("fairlead.web")


@dataclass(frozen=True)
class Listing:
    """What a server says of one of its models before anything runs.

    Parameters
    ----------
    name, version, engine, digest : as the bundle says.
    path : where the bundle is.
    """

    name: str
    version: str
    engine: str
    digest: str
    path: Path

    @classmethod
    def of(cls, bundle: Bundle) -> Listing:
        """List an open bundle."""
        manifest = bundle.manifest
        return cls(manifest.name, manifest.version, manifest.engine, bundle.digest, bundle.path)


class Model:
    """A model that answers.

    Parameters
    ----------
    listing : what it is.
    intake : checks its records.
    batcher : the queue in front of its engine.
    example : a record that it accepts; None when the bundle has none.
    unseen : gives how often a value outside the categories came, by feature.
    """

    def __init__(
        self,
        listing: Listing,
        intake: Intake,
        batcher: Batcher,
        example: dict[str, Any] | None,
        unseen: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.unseen = unseen
        self.listing = listing
        self.name = listing.name
        self.version = listing.version
        self.intake = intake
        self.batcher = batcher
        self.example = example
        self._told_ignored = 0
        self._told_unseen: dict[str, int] = {}

    def observe(self, metrics: Metrics | None, tracer: Tracer | None) -> None:
        """Have the batches of this model counted."""
        if metrics is not None:
            one = self.listing
            metrics.model_info(one.name, one.version, one.engine, one.digest)

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
        """Whether its engine is there and answers."""
        return self.batcher.runner.slots > 0 and not self.batcher.is_stuck


def load(settings: ModelSettings, max_queue_rows: int, run_directory: Path | None = None) -> Model:
    """Verify and load one bundle, and measure where its engine is best run.

    Parameters
    ----------
    run_directory : where the processes of an isolated model are found.

    Raises
    ------
    BundleError
        When it is none or was changed.
    ModelFailed
        When the model cannot predict its own example.
    """
    # Here, so that a parent that only verifies does not import what computes.
    from fairlead.predict.predictor import predictor_of
    from fairlead.web.batching import Batcher
    from fairlead.web.runners import LoopRunner, Runner, ThreadRunner, place

    bundle = open_served(settings)
    listing = Listing.of(bundle)
    example = bundle.example()
    if settings.isolation == "process" and run_directory is not None:
        return _isolated(settings, listing, bundle, max_queue_rows, run_directory)
    predictor = predictor_of(bundle)
    placed = place(predictor, example)
    runner: Runner = LoopRunner(predictor) if placed.place == "loop" else ThreadRunner(predictor)
    logger.info("%s %s: %s", listing.name, listing.version, placed)
    return Model(
        listing,
        predictor.intake,
        Batcher(runner, placed.cost, max_queue_rows),
        example,
        lambda: predictor.engine.unseen,
    )


def _isolated(
    settings: ModelSettings, listing: Listing, bundle: Bundle, max_queue_rows: int, run_directory: Path
) -> Model:
    """Make a model that runs elsewhere: here its records are only checked."""
    from fairlead.predict.intake import Intake
    from fairlead.web.batching import Batcher
    from fairlead.web.isolation import ProcessRunner, socket_path
    from fairlead.web.runners import LOOP_LIMIT_NS, Cost

    paths = [socket_path(run_directory, listing.name, number) for number in range(settings.processes)]
    runner = ProcessRunner(paths, bundle.digest)
    batcher = Batcher(runner, Cost(0.0, LOOP_LIMIT_NS), max_queue_rows)
    runner.on_change = batcher.slots_changed
    return Model(listing, Intake(bundle.manifest, bundle.digest), batcher, bundle.example())


def load_all(models: Sequence[ModelSettings], max_queue_rows: int, run_directory: Path | None = None) -> list[Model]:
    """Load bundles.

    Raises
    ------
    BundleError
        When one is no bundle or was changed.
    ServeError
        When two models have one name.
    """
    loaded = [load(model, max_queue_rows, run_directory) for model in models]
    check_names([model.name for model in loaded])
    return loaded


def verify(models: Sequence[ModelSettings]) -> list[Listing]:
    """Verify bundles without loading their models; raises what `load_all` raises."""
    listings = [Listing.of(open_served(model)) for model in models]
    check_names([listing.name for listing in listings])
    return listings


def open_served(settings: ModelSettings) -> Bundle:
    """Open and verify a bundle, under the name that it is served as."""
    bundle = open_bundle(Path(settings.source))
    if settings.name is None:
        return bundle
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=settings.name))


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

"""The model that a consumer scores with, and its change between two batches.

What is to be served is a `Deployment`, as on the web; the versions of one are loaded beside those that answer, and the
next batch has them. Layer L3; imports what predicts when a bundle is loaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fairlead.bundle.read import open_bundle
from fairlead.config import ModelSettings, Settings
from fairlead.errors import BundleError, ConfigError, ServeError
from fairlead.repository.compatibility import incompatibilities
from fairlead.repository.deployments import Deployment, Variant
from fairlead.repository.rollback import Counts, Tally
from fairlead.repository.threads import in_thread
from fairlead.repository.traffic import Sticky, check_sticky
from fairlead.stream.envelope import Envelope

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics
    from fairlead.stream.scoring import Member, Run, Team

_LOAD_S = 120.0

logger = logging.getLogger("fairlead.stream")


def chosen_model(
    settings: Settings, source: str | None, refresh_s: float | None, environ: Mapping[str, str]
) -> ModelSettings:
    """Say which model a consumer scores with.

    Parameters
    ----------
    settings : has the models of a configuration, and which of them is meant.
    source : that was named beside them, which goes over them.
    refresh_s : how often to look for a newer version; None for what the configuration says.
    environ : names a model where nothing else does, as for `fairlead serve`.

    Raises
    ------
    ConfigError
        When there is none, or it is not clear which.
    """
    name = settings.stream.model
    if source is None and not settings.models:
        from fairlead.bundle.sources import default_source

        source = default_source(environ)
    if source is not None:
        return ModelSettings(source, refresh_s=refresh_s)
    if name is not None and name not in settings.models:
        raise ConfigError(
            f"stream.model: expected one of {', '.join(settings.models) or 'models, of which there are none'}"
        )
    if name is None and len(settings.models) != 1:
        known = f"there are {', '.join(settings.models)}: name one with --model" if settings.models else "got none"
        raise ConfigError(f"expected a model to score with: {known}")
    model = settings.models[name] if name is not None else next(iter(settings.models.values()))
    return model if refresh_s is None else replace(model, refresh_s=refresh_s)


def load(variant: Variant, name: str, envelope: Envelope, max_record_bytes: int) -> Member:
    """Verify and load a bundle, to read and answer events.

    Parameters
    ----------
    name : it is served as.

    Raises
    ------
    BundleError
        When it is none, or another than the variant says.
    ConfigError
        When the envelope does not go with its outputs.
    """
    # Here, so that a command that ends with a wrong flag does not import what computes.
    from fairlead.predict.predictor import predictor_of
    from fairlead.stream.events import Reader
    from fairlead.stream.scoring import Member

    bundle = open_bundle(Path(variant.path))
    if bundle.digest != variant.digest:
        raise BundleError(f"{variant.path}: changed since it was taken into service: load {variant.name} again")
    envelope.check_outputs([output.name for output in bundle.manifest.outputs])
    predictor = predictor_of(bundle)
    example = bundle.example()
    predictor.run([example] if example else [])  # the first run takes longest
    return Member(variant, predictor, Reader(predictor.intake, envelope, max_record_bytes))


class Models:
    """What answers, on one event loop; the `Crew` of a `Controller`.

    Parameters
    ----------
    name : of the model.
    envelope, max_record_bytes : of the events.
    metrics : where runs are counted.

    Attributes
    ----------
    team : what answers the next batch; None until there is something.
    deployment : what is served.
    on_canary : told how a canary did, by name, digest and counts.
    """

    def __init__(self, name: str, envelope: Envelope, max_record_bytes: int, metrics: Metrics | None = None) -> None:
        self.team: Team | None = None
        self.deployment = Deployment(name=name, is_pending=True, reason="it is being fetched")
        self.on_canary: Callable[[str, str, Counts], None] = lambda name, digest, counts: None
        self._name = name
        self._envelope = envelope
        self._max_record_bytes = max_record_bytes
        self._metrics = metrics
        self._loaded: dict[str, Member] = {}
        self._tally = Tally(None)
        self._ignored_told: dict[str, int] = {}
        self._there = asyncio.Event()

    async def wait(self) -> None:
        """Return when something answers."""
        await self._there.wait()

    async def prepare(self, deployment: Deployment) -> None:
        """Load what is new in a deployment; raises what `load` raises, and changes nothing then."""
        fresh: dict[str, Member] = {}
        for role, variant in deployment.variants():
            if role == "shadow" or variant.digest in self._loaded or variant.digest in fresh:
                continue
            work = partial(load, variant, self._name, self._envelope, self._max_record_bytes)
            try:
                fresh[variant.digest] = await asyncio.wait_for(in_thread(work), _LOAD_S)
            except TimeoutError as error:
                raise ServeError(f"{self._name}: it did not load within {_LOAD_S:g} s") from error
        self._check_fit(deployment, {**self._loaded, **fresh})
        self._loaded |= fresh

    def _check_fit(self, deployment: Deployment, loaded: dict[str, Member]) -> None:
        """Refuse what those who read the answers could not use; the present bundle may be gone from the disk by now."""
        if deployment.stable is not None:
            check_sticky(deployment, loaded[deployment.stable.digest].predictor.schema)
        if deployment.sticky is not None and Sticky.parse(deployment.sticky).kind == "cookie":
            raise ConfigError(
                f"{deployment.name}: sticky: expected header:NAME or feature:NAME, events have no cookies"
            )
        if self.team is None:
            return
        present = self.team.stable.predictor.manifest
        for _, variant in deployment.variants():
            if variant.digest not in loaded:
                continue
            if problems := incompatibilities(present, loaded[variant.digest].predictor.manifest):
                raise ServeError(
                    f"{self._name}: version {variant.version} cannot take the place of {present.version}: "
                    f"{'; '.join(problems)}"
                )

    async def serve(self, deployment: Deployment, *, drains: bool = False) -> None:
        """Have the next batch answered by a prepared deployment."""
        from fairlead.stream.scoring import Team

        before, self.deployment = self._loaded, deployment
        used = {variant.digest for role, variant in deployment.variants() if role != "shadow"}
        self._loaded = {digest: member for digest, member in before.items() if digest in used}
        self._tell_metrics(before)
        if deployment.stable is None:
            self.team = None
            self._there.clear()
            return
        canary = None if deployment.canary is None else self._loaded[deployment.canary.digest]
        self._tally = Tally(deployment.max_latency_s)
        loop = asyncio.get_running_loop()

        def soon(count: Callable[..., None], *told: object) -> None:
            loop.call_soon_threadsafe(count, *told)

        self.team = Team(
            self._name,
            self._envelope,
            self._loaded[deployment.stable.digest],
            canary,
            deployment.weight,
            None if deployment.sticky is None else Sticky.parse(deployment.sticky),
            partial(soon, self._count_run),
            partial(soon, self._count_canary),
        )
        self._there.set()

    def tell(self) -> None:
        """Pass on what was counted since the last time; to be called now and then."""
        canary = self.deployment.canary
        counts = self._tally.take()
        if canary is not None and counts.requests:
            self.on_canary(self._name, canary.digest, counts)
        for member in self._loaded.values():
            self._tell_ignored(member)

    def _tell_ignored(self, member: Member) -> None:
        found, told = member.predictor.counts.ignored_keys, self._ignored_told.get(member.variant.digest, 0)
        if self._metrics is not None and found > told:
            self._metrics.ignored_keys(self._name, member.variant.version, found - told)
            self._ignored_told[member.variant.digest] = found

    def _count_run(self, run: Run) -> None:
        if self._metrics is None:
            return
        self._metrics.rows(self._name, run.version, run.rows)
        self._metrics.rejected(self._name, run.version, run.rejected)
        if run.rows:
            self._metrics.batch(self._name, run.version, run.rows, run.duration_ns)

    def _count_canary(self, events: int, failed: int, each_ns: int) -> None:
        for number in range(events):
            self._tally.add(number < failed, each_ns)

    def _tell_metrics(self, before: dict[str, Member]) -> None:
        if self._metrics is None:
            return
        for digest, member in before.items():
            one = member.variant
            told = self._metrics.model_info if digest in self._loaded else self._metrics.model_gone
            told(self._name, one.version, one.engine, one.digest)

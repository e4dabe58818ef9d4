"""Decides what is served: looks where models come from, tries new versions, and has them taken into service.

A `Controller` knows for each name where its bundles come from and the `Deployment` that is served now. Nothing that
fails changes a deployment. Who answers requests is its `Crew`: the models of this process, or all workers of a
server. Everything happens on the event loop; what takes long happens in other processes or threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec.structs import replace

from fairlead.config import ModelSettings
from fairlead.errors import FairleadError, ServeError
from fairlead.repository.control import Reloaded, Share, Traffic, TrafficChange
from fairlead.repository.deployments import Deployment, Role, Variant
from fairlead.repository.finder import is_bundle
from fairlead.repository.rollback import Bounds, Counts, Judge
from fairlead.repository.state import Rollback, TrafficState
from fairlead.repository.trial import try_bundle

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics

logger = logging.getLogger("fairlead.repository")

UNLOADED = "it was unloaded"
# A model that takes longer to load and to answer twice would hold up every reload.
_TRIAL_S = 120.0


class Crew(Protocol):
    """Whoever answers requests."""

    async def prepare(self, deployment: Deployment) -> None:
        """Load what is new in a deployment, everywhere, beside what answers.

        Raises
        ------
        FairleadError
            When that fails anywhere; then nothing has changed.
        """
        ...

    async def serve(self, deployment: Deployment, *, drains: bool = False) -> None:
        """Serve a prepared deployment in one step.

        Parameters
        ----------
        drains : whether to return only when nothing of the former answers any more.
        """
        ...


class Finder(Protocol):
    """Brings bundles to this machine."""

    async def find(self, source: str, name: str, *, is_kept: bool, report: Callable[[str], None]) -> Variant:
        """Give the bundle that a source means now.

        Parameters
        ----------
        name : what it is served as.
        is_kept : whether a later change of a local directory must change nothing that is served.
        report : told how far it is, for people.

        Raises
        ------
        FairleadError
            When it cannot be had.
        """
        ...

    def keep(self, paths: Iterable[str]) -> None:
        """Tell which bundles are in use; all others may leave the cache."""
        ...


@dataclass
class _Target:
    """What the controller knows of one name.

    Parameters
    ----------
    settings : where its bundles come from.
    deployment : what is served now.
    refused : digests that were tried and left out, by why; not tried again until somebody asks.
    found : directories of what was found by the look that goes on.
    judge : of the canary with this digest.
    rolled_back : why the canary was taken back.
    told : the last failure that was logged, so that one that stays is logged once.
    """

    settings: ModelSettings
    deployment: Deployment
    refused: dict[str, str] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    told: str = ""
    judge: tuple[str, Judge] | None = None
    rolled_back: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def judge_of(self, canary: Variant) -> Judge:
        """Give who judges this canary; each gets one of its own."""
        if self.judge is None or self.judge[0] != canary.digest:
            assert self.settings.canary is not None
            self.judge = canary.digest, Judge(Bounds.of(self.settings.canary))
        return self.judge[1]

    def sources(self) -> dict[Role, str]:
        """Give where each role's bundle comes from."""
        settings = self.settings
        found: dict[Role, str] = {"stable": settings.source}
        if settings.canary is not None:
            found["canary"] = settings.canary.source
        if settings.shadow is not None:
            found["shadow"] = settings.shadow.source
        return found


class Controller:
    """Decides what is served.

    Parameters
    ----------
    models : where each name's bundles come from.
    deployments : what is served at the beginning.
    crew : who answers requests.
    finder : brings bundles here.
    state : keeps changes of traffic for the next start.
    metrics : where reloads are counted.
    """

    def __init__(
        self,
        models: Mapping[str, ModelSettings],
        deployments: Mapping[str, Deployment],
        crew: Crew,
        finder: Finder,
        state: TrafficState,
        metrics: Metrics | None = None,
    ) -> None:
        self._targets = {name: _Target(settings, deployments[name]) for name, settings in models.items()}
        self._crew = crew
        self._finder = finder
        self._state = state
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def deployments(self) -> dict[str, Deployment]:
        """What is served now, by name."""
        return {name: target.deployment for name, target in self._targets.items()}

    async def begin(self) -> None:
        """Bring in what is not here yet, then watch what is to be watched.

        Raises
        ------
        FairleadError
            When a model's stable bundle cannot be had. A canary or shadow that cannot is left out.
        """
        await asyncio.gather(*map(self._begin, self._targets.values()))
        for target in self._targets.values():
            if target.settings.refresh_s is not None:
                self._start(self._watch(target, target.settings.refresh_s))

    def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()

    async def reload(self, name: str) -> Reloaded:
        """Look now whether a model's sources mean something new, and serve that.

        Raises
        ------
        FairleadError
            When something new is there and cannot be served, or nobody can tell; what was served goes on.
        """
        target = self._targets[name]
        async with target.lock:
            target.refused.clear()
            return await self._reload(target)

    async def traffic(self, name: str) -> Traffic:
        """Tell who answers a model's requests."""
        return _traffic(self._targets[name])

    async def set_traffic(self, name: str, change: TrafficChange) -> Traffic:
        """Give the canary another share of the requests.

        Raises
        ------
        ServeError
            When there is no canary.
        """
        target = self._targets[name]
        async with target.lock:
            if target.deployment.canary is None:
                raise ServeError(f"{name} has no canary: name one in fairlead.yaml")
            assert target.settings.canary is not None
            self._state.set_weight(name, target.settings.canary, change.canary.weight)
            target.judge = target.rolled_back = None
            await self._weigh(target, change.canary.weight)
            return _traffic(target)

    async def unload(self, name: str) -> None:
        """Take a model out of service; return when its last request is answered."""
        target = self._targets[name]
        async with target.lock:
            gone = replace(target.deployment, stable=None, canary=None, shadow=None, reason=UNLOADED)
            target.deployment = gone
            await self._crew.serve(gone, drains=True)

    def count(self, name: str, digest: str, counts: Counts) -> None:
        """Hear how a canary did, and take it back when that is out of bounds."""
        target = self._targets[name]
        canary = target.deployment.canary
        if canary is None or canary.digest != digest or not target.deployment.weight:
            return
        if (reason := target.judge_of(canary).add(counts, time.monotonic())) is not None:
            self._start(self._roll_back(target, canary, reason))

    async def _roll_back(self, target: _Target, canary: Variant, reason: str) -> None:
        async with target.lock:
            # Another may have come in its place while this waited, or it was taken back already.
            if target.deployment.canary != canary or not target.deployment.weight:
                return
            name, settings = target.deployment.name, target.settings.canary
            assert settings is not None
            logger.error("%s: its canary %s is taken back: %s", name, canary.version, reason)
            target.rolled_back = reason
            self._state.roll_back(name, settings, Rollback(canary.digest, reason))
            if self._metrics is not None:
                self._metrics.rolled_back(name, canary.version)
            await self._weigh(target, 0.0)

    async def _weigh(self, target: _Target, weight: float) -> None:
        """Give the canary a share."""
        target.deployment = replace(target.deployment, weight=weight)
        self._tell_weight(target)
        await self._crew.serve(target.deployment)

    def _tell_weight(self, target: _Target) -> None:
        deployment = target.deployment
        if self._metrics is not None and deployment.canary is not None:
            self._metrics.canary_weight(deployment.name, deployment.canary.version, deployment.weight)

    async def _begin(self, target: _Target) -> None:
        async with target.lock:
            for role, source in target.sources().items():
                if target.deployment.variant(role) is not None:
                    continue
                try:
                    variant = await self._find(target, source)
                    if role != "stable":
                        await self._try(target, variant)
                    await self._deploy(target, self._with(target, role, variant, target.deployment))
                except FairleadError as error:
                    if role == "stable":
                        raise
                    self._count(target, error)
                    self._leave_out(target, role, error)

    async def _watch(self, target: _Target, refresh_s: float) -> None:
        while True:
            await asyncio.sleep(refresh_s)
            try:
                async with target.lock:
                    if target.deployment.reason == UNLOADED:
                        continue
                    await self._reload(target)
                if target.told:
                    logger.info("%s: its source can be read again", target.deployment.name)
                target.told = ""
            except FairleadError as error:
                if str(error) != target.told:
                    logger.error("%s: goes on as it is: %s", target.deployment.name, error)
                target.told = str(error)
            except Exception:
                logger.exception("%s: goes on as it is", target.deployment.name)

    async def _reload(self, target: _Target) -> Reloaded:
        target.found.clear()
        before = target.deployment
        failures: dict[Role, FairleadError] = {}
        wanted = before
        for role, source in target.sources().items():
            try:
                variant = await self._find(target, source)
                if (there := before.variant(role)) is not None and there.digest == variant.digest:
                    continue
                if variant.digest in target.refused:
                    failures[role] = ServeError(target.refused[variant.digest])
                    continue
                await self._try(target, variant)
                wanted = self._with(target, role, variant, wanted)
            except FairleadError as error:
                self._count(target, error)
                failures[role] = error
        if wanted is not before and wanted.stable is not None:
            try:
                await self._deploy(target, wanted)
            except FairleadError as error:
                self._count(target, error)
                for role, one in wanted.variants():
                    if one != before.variant(role):
                        self._refuse(target, one, error)
                raise
        for role, failure in failures.items():
            if target.deployment == before:
                raise failure
            self._leave_out(target, role, failure)
        assert target.deployment.stable is not None
        now = target.deployment.stable
        result: Literal["swapped", "unchanged"] = "unchanged" if target.deployment == before else "swapped"
        if self._metrics is not None:
            self._metrics.reloaded(before.name, result)
        return Reloaded(before.name, now.version, now.digest, result)

    async def _find(self, target: _Target, source: str) -> Variant:
        name = target.deployment.name

        def report(text: str) -> None:
            if target.deployment.is_pending:
                target.deployment = replace(target.deployment, reason=text)
                self._start(self._crew.serve(target.deployment))

        is_kept = target.settings.refresh_s is not None
        variant = await self._finder.find(source, name, is_kept=is_kept, report=report)
        target.found.add(variant.path)
        if target.settings.name is None and variant.name != name and is_bundle(source):
            raise ServeError(f"{source}: expected the model {name}, its bundle holds one named {variant.name} by now")
        return variant

    async def _try(self, target: _Target, variant: Variant) -> None:
        """Have a bundle tried in a process of its own, beside the one that is served."""
        name, stable = target.deployment.name, target.deployment.stable
        # Of a directory that is not kept, what was there before has gone.
        current = None if stable is None or stable.path == variant.path else stable.path
        try:
            found = await try_bundle(variant.path, current, _TRIAL_S)
        except FairleadError as error:
            self._refuse(target, variant, error)
            raise
        logger.info("%s: version %s was tried: %s", name, variant.version, found)

    def _refuse(self, target: _Target, variant: Variant, error: FairleadError) -> None:
        """Not try a version again until somebody asks, unless what failed was something else."""
        if not error.retryable:
            target.refused[variant.digest] = str(error)

    def _leave_out(self, target: _Target, role: Role, error: FairleadError) -> None:
        logger.error("%s: its %s is left out: %s", target.deployment.name, role, error)

    async def _deploy(self, target: _Target, wanted: Deployment) -> None:
        await self._crew.prepare(wanted)
        before, target.deployment = target.deployment, wanted
        canary = target.settings.canary
        if canary is not None and wanted.canary is not None and wanted.canary != before.canary:
            target.rolled_back = self._state.canary(wanted.name, canary, wanted.canary.digest).rolled_back
        await self._crew.serve(wanted)
        self._tell_weight(target)
        served = {variant.path for one in self.deployments.values() for _, variant in one.variants()}
        # What was found and is being tried is in use too.
        self._finder.keep(served.union(*(one.found for one in self._targets.values())))
        for role, variant in wanted.variants():
            if variant != before.variant(role):
                logger.info("%s: version %s is %s now", wanted.name, variant.version, role)

    def _with(self, target: _Target, role: Role, variant: Variant, before: Deployment) -> Deployment:
        """Give a deployment with another bundle in one role."""
        if role == "stable":
            return replace(before, stable=variant, reason="", is_pending=False)
        if role == "shadow":
            return replace(before, shadow=variant)
        canary = target.settings.canary
        assert canary is not None
        kept = self._state.canary(before.name, canary, variant.digest)
        return replace(
            before, canary=variant, weight=kept.weight, sticky=canary.sticky, max_latency_s=canary.max_latency_s
        )

    def _count(self, target: _Target, error: FairleadError) -> None:
        if self._metrics is not None:
            self._metrics.reloaded(target.deployment.name, "failed" if error.retryable else "refused")

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _traffic(target: _Target) -> Traffic:
    deployment = target.deployment
    weights: dict[Role, float] = {"stable": 1 - deployment.weight, "canary": deployment.weight, "shadow": 0.0}
    shares = {role: Share(one.version, one.digest, weights[role]) for role, one in deployment.variants()}
    canary, shadow = shares.get("canary"), shares.get("shadow")
    return Traffic(deployment.name, shares.get("stable"), canary, shadow, deployment.sticky, target.rolled_back)

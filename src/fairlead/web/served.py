"""The models that one process serves, by name, and their change without a seam.

What is to be served is a `Deployment`. `prepare` loads its bundles beside those that answer, `serve` puts them in
their place in one step, and what is used no more goes when it has given its last answer. Everything but the
loading itself happens on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fairlead.errors import ServeError
from fairlead.repository.compatibility import incompatibilities
from fairlead.repository.deployments import Deployment, Role, Variant
from fairlead.repository.threads import in_thread
from fairlead.repository.traffic import check_sticky
from fairlead.web.lazy import LazyBatcher, Residents
from fairlead.web.models import LOAD_TIMEOUT_S, Entry, Loader, Model, check_names
from fairlead.web.problems import Refusal

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics
    from fairlead.monitor.tracing import Tracer

# How often a model that is taken out of service is looked at, whether its last request is answered.
_LOOK_S = 0.01
Key = tuple[str, str, bool]


class Served:
    """The models of this process.

    Parameters
    ----------
    entries : at least one, names unique; the names stay for good.
    loader : loads others.
    timeout_s : how long a model may take to its last answer.
    metrics, tracer : where batches are counted; None where nobody wants it.
    budget_bytes : what lazy models may take of this process's memory; None for no limit.

    Attributes
    ----------
    entries : what there is under each name.
    on_change : told the name of an entry that has changed.

    Raises
    ------
    ServeError
        When two models have one name.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        loader: Loader,
        timeout_s: float,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        budget_bytes: int | None = None,
    ) -> None:
        check_names([entry.deployment.name for entry in entries])
        self.entries = {entry.deployment.name: entry for entry in entries}
        self.on_change: Callable[[str], None] = lambda name: None
        self._loader = loader
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._tracer = tracer
        self._residents = Residents(budget_bytes, timeout_s, metrics)
        self._prepared: dict[Key, Model] = {}
        self._loading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        for model in self.models():
            self._adopt(model)

    def start(self) -> None:
        """Begin, on the event loop, what models need besides requests."""
        for model in self.models():
            model.batcher.runner.start()

    def models(self) -> Iterator[Model]:
        """Give all models, whatever their role."""
        for entry in self.entries.values():
            yield from entry.models.values()

    def stable(self) -> dict[str, Model]:
        """Give the models that answer, by name."""
        return {name: entry.stable for name, entry in self.entries.items() if entry.stable is not None}

    def why_not_ready(self) -> str | None:
        """Tell why not all models answer; None when they do.

        Those are not counted that are unloaded on purpose, nor lazy ones, which are many: one may fail.
        """
        waiting = [entry.deployment for entry in self.entries.values() if entry.deployment.is_pending]
        if waiting:
            return "; ".join(f"{one.name}: {one.reason}" for one in waiting)
        if not self.stable():
            return "no model is loaded"
        eager = (entry.stable for entry in self.entries.values() if not entry.deployment.is_lazy)
        return None if all(model is None or model.is_ready for model in eager) else "a model does not answer"

    def find(self, name: str) -> Model:
        """Give the model that answers under a name.

        Raises
        ------
        Refusal
            ``not_found``; ``not_ready`` while it is on its way.
        """
        entry = self.entry(name)
        if entry.stable is None:
            raise not_loaded(entry)
        return entry.stable

    def entry(self, name: str) -> Entry:
        """Give what there is under a name; raises as `find` for a name that is not known."""
        if name not in self.entries:
            raise Refusal("not_found", f"there is no such model: there are {', '.join(self.entries)}")
        return self.entries[name]

    async def prepare(self, deployment: Deployment) -> None:
        """Load what is not loaded yet of a deployment; what answers goes on as it is.

        Raises
        ------
        FairleadError
            When a bundle cannot be served; then nothing of the deployment is kept.
        """
        async with self._loading:
            there = self._there(deployment.name)
            fresh: dict[Key, Model] = {}
            try:
                for role, variant in deployment.variants():
                    key = _key(deployment.name, role, variant)
                    if not (key in there or key in fresh):
                        fresh[key] = await self._load(deployment, role)
                self._check_fit(deployment.name, fresh.values())
                if deployment.stable is not None:
                    stable = {**there, **fresh}[_key(deployment.name, "stable", deployment.stable)]
                    check_sticky(deployment, stable.intake.manifest.schema)
            except BaseException:
                for model in fresh.values():
                    model.batcher.close()
                raise
            for model in fresh.values():
                self._adopt(model)
                model.batcher.runner.start()
            self._prepared |= fresh

    async def _load(self, deployment: Deployment, role: Role) -> Model:
        try:
            return await asyncio.wait_for(in_thread(partial(self._loader.load, deployment, role)), LOAD_TIMEOUT_S)
        except TimeoutError as error:
            raise ServeError(f"{deployment.name}: it did not load within {LOAD_TIMEOUT_S:g} s") from error

    async def serve(self, deployment: Deployment, *, drains: bool = False) -> None:
        """Serve a deployment that was prepared, in one step.

        Parameters
        ----------
        drains : whether to return only when nothing of the former answers any more.

        Raises
        ------
        ServeError
            When a bundle of it is not loaded.
        """
        last_answers = self._swap(deployment)
        if drains:
            await asyncio.gather(*last_answers)

    def _swap(self, deployment: Deployment) -> list[asyncio.Task[None]]:
        name = deployment.name
        there = self._there(name)
        models: dict[Role, Model] = {}
        for role, variant in deployment.variants():
            key = _key(name, role, variant)
            if key not in there:
                raise ServeError(f"{name}: version {variant.version} is not loaded: load it again")
            models[role] = there[key]
        self._prepared = {key: model for key, model in self._prepared.items() if key[0] != name}
        self.entries[name] = Entry(deployment, models)
        self.on_change(name)
        used = {id(model) for model in models.values()}
        return [self._retire_soon(model) for model in there.values() if id(model) not in used]

    def _check_fit(self, name: str, fresh: Iterable[Model]) -> None:
        """Refuse models that clients of the present one could not use; its bundle may be gone from the disk by now."""
        present = self.entries[name].stable
        if present is None:
            return
        for model in fresh:
            if problems := incompatibilities(present.intake.manifest, model.intake.manifest):
                raise ServeError(
                    f"{name}: version {model.version} cannot take the place of {present.version}: {'; '.join(problems)}"
                )

    def tell_metrics(self, metrics: Metrics) -> None:
        """Pass on what models count for themselves."""
        for model in self.models():
            model.tell(metrics)

    def _adopt(self, model: Model) -> None:
        model.observe(self._metrics, self._tracer)
        if isinstance(model.batcher, LazyBatcher):
            model.batcher.residents = self._residents

    def _there(self, name: str) -> dict[Key, Model]:
        """Give what is loaded under a name, prepared or serving."""
        entry = self.entries[name]
        found = {key: model for key, model in self._prepared.items() if key[0] == name}
        for role, model in entry.models.items():
            found[_key(name, role, model.variant)] = model
        return found

    def _retire_soon(self, model: Model) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._retire(model))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _retire(self, model: Model) -> None:
        """Wait for a model's last answer, which has a deadline, and let go of its engine."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._timeout_s
        try:
            while not model.batcher.is_idle and loop.time() < end_s:
                await asyncio.sleep(_LOOK_S)
        finally:
            model.batcher.close()
            if self._metrics is not None:
                one = model.variant
                self._metrics.model_gone(model.name, one.version, one.engine, one.digest)
                for other in self.models():  # the same bundle may have been loaded again meanwhile
                    other.observe(self._metrics, self._tracer)


def _key(name: str, role: Role, variant: Variant) -> Key:
    """Name what is loaded: canary and stable may be the same model, a shadow runs elsewhere."""
    return name, variant.digest, role == "shadow"


def not_loaded(entry: Entry) -> Refusal:
    """Refuse what nothing is loaded for."""
    deployment = entry.deployment
    detail = f"{deployment.name} is not loaded: {deployment.reason}"
    if deployment.is_pending:
        return Refusal("not_ready", detail, headers=[(b"retry-after", b"1")])
    return Refusal("not_found", detail)

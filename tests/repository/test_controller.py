"""Who decides what is served, beside a crew and a finder that do as they are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fairlead.config import CanarySettings, ModelSettings, ShadowSettings
from fairlead.errors import FairleadError, ServeError, SourceUnavailable, TrialFailed, VersionRefused
from fairlead.repository import controller
from fairlead.repository.control import CanaryChange, Reloaded, TrafficChange
from fairlead.repository.controller import Controller
from fairlead.repository.deployments import Deployment, Variant
from fairlead.repository.rollback import Counts
from fairlead.repository.state import TrafficState
from fairlead.repository.trial import Comparison

LOOK_S = 0.01


def variant(version: str, name: str = "churn") -> Variant:
    return Variant(name=name, version=version, engine="native", digest=f"digest {version}", path=f"/kept/{version}")


FIRST = variant("1")


@dataclass
class Finder:
    """Finds what `there` says; an error is raised."""

    there: dict[str, Variant | FairleadError]
    kept: list[str] = field(default_factory=list)
    looks: int = 0
    finding: asyncio.Event | None = None
    steps: tuple[str, ...] = ()

    async def find(self, source: str, name: str, *, is_kept: bool, report: Callable[[str], None]) -> Variant:
        self.looks += 1
        for step in self.steps:
            report(step)
        await asyncio.sleep(0)
        if self.finding is not None:
            await self.finding.wait()
        found = self.there[source]
        if isinstance(found, FairleadError):
            raise found
        return found

    def keep(self, paths: Iterable[str]) -> None:
        self.kept = sorted(paths)


@dataclass
class Crew:
    """Takes note of its orders; `error` is what `prepare` fails with."""

    orders: list[tuple[str, Deployment]] = field(default_factory=list)
    error: FairleadError | None = None
    drained: asyncio.Event | None = None

    async def prepare(self, deployment: Deployment) -> None:
        self.orders.append(("prepare", deployment))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def serve(self, deployment: Deployment, *, drains: bool = False) -> None:
        self.orders.append(("drain" if drains else "serve", deployment))
        await asyncio.sleep(0)
        if drains and self.drained is not None:
            await self.drained.wait()

    @property
    def served(self) -> Deployment:
        return [deployment for action, deployment in self.orders if action != "prepare"][-1]


@dataclass
class Trials:
    """Tries versions; those in `bad` fail with what stands there."""

    tried: list[tuple[str, str | None]] = field(default_factory=list)
    bad: dict[str, FairleadError] = field(default_factory=dict)

    async def __call__(self, new: str, current: str | None, timeout_s: float) -> Comparison:
        self.tried.append((Path(new).name, None if current is None else Path(current).name))
        await asyncio.sleep(0)
        if (error := self.bad.get(Path(new).name)) is not None:
            raise error
        return Comparison(2, 0.5)


class Metrics:
    """Counts as `fairlead.monitor.metrics.Metrics` does, where tests can see it."""

    def __init__(self) -> None:
        self.counted: list[tuple[Any, ...]] = []

    def reloaded(self, model: str, result: str) -> None:
        self.counted.append(("reloaded", result))

    def rolled_back(self, model: str, version: str) -> None:
        self.counted.append(("rolled_back", version))

    def canary_weight(self, model: str, version: str, weight: float) -> None:
        self.counted.append(("weight", version, weight))


@dataclass
class Bench:
    """A controller of one model, and all that is around it."""

    finder: Finder
    crew: Crew
    trials: Trials
    metrics: Metrics
    controller: Controller

    @property
    def now(self) -> Deployment:
        return self.controller.deployments["churn"]

    @property
    def results(self) -> list[str]:
        return [result for what, result, *_ in self.metrics.counted if what == "reloaded"]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    found = Trials()
    monkeypatch.setattr(controller, "try_bundle", found)
    return found


@pytest.fixture
def bench(trials: Trials) -> Callable[..., Bench]:
    """Give a controller of `churn`, version 1, with more settings: ``bench(refresh_s=0.01)``."""

    def make(stable: Variant | None = FIRST, state: Path | None = None, **settings: Any) -> Bench:
        models = {"churn": ModelSettings("models", **settings)}
        there: dict[str, Variant | FairleadError] = {
            "models": variant("1"),
            "canaries": variant("c1"),
            "shadows": variant("s1"),
        }
        deployment = Deployment(name="churn", stable=stable, is_pending=stable is None, reason="it is being fetched")
        finder, crew, metrics = Finder(there), Crew(), Metrics()
        made = Controller(models, {"churn": deployment}, crew, finder, TrafficState(state, "test"), metrics)
        return Bench(finder, crew, trials, metrics, made)

    return make


async def passes(check: Callable[[], object], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not check():
            await asyncio.sleep(0.002)


async def some_looks(bench: Bench, count: int = 3) -> None:
    """Wait until a watched source was looked at some times more."""
    looks = bench.finder.looks + count
    await passes(lambda: bench.finder.looks >= looks)


async def raises(work: Awaitable[object], match: str) -> FairleadError:
    with pytest.raises(FairleadError, match=match) as caught:
        await work
    return caught.value


def messages(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


CANARY = CanarySettings("canaries", weight=0.25, sticky="header:x-user", min_requests=10, window_s=60)


def test_what_has_not_changed_is_left_alone(bench: Callable[..., Bench]) -> None:
    one = bench()
    assert asyncio.run(one.controller.reload("churn")) == Reloaded("churn", "1", "digest 1", "unchanged")
    assert one.crew.orders == []
    assert one.trials.tried == []
    assert one.results == ["unchanged"]


def test_a_new_version_is_tried_prepared_and_served(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = bench()
    one.finder.there["models"] = variant("2")
    assert asyncio.run(one.controller.reload("churn")) == Reloaded("churn", "2", "digest 2", "swapped")
    assert one.trials.tried == [("2", "1")]
    assert [(action, deployment.stable) for action, deployment in one.crew.orders] == [
        ("prepare", variant("2")),
        ("serve", variant("2")),
    ]
    assert one.now.stable == variant("2")
    assert one.results == ["swapped"]
    assert one.finder.kept == ["/kept/2"]
    assert messages(caplog, "version 2 is stable now")
    assert messages(caplog, "version 2 was tried: answers 2 examples, within 0.5 of the current version")


def test_a_version_in_the_place_of_the_former_is_not_compared_with_itself(bench: Callable[..., Bench]) -> None:
    one = bench(replace(variant("1"), path="/models/churn"))
    one.finder.there["models"] = replace(variant("2"), path="/models/churn")
    assert asyncio.run(one.controller.reload("churn")).result == "swapped"
    assert one.trials.tried == [("churn", None)]


def test_a_watched_source_is_taken_up_by_itself(bench: Callable[..., Bench]) -> None:
    async def go() -> None:
        one = bench(refresh_s=LOOK_S)
        await one.controller.begin()
        await some_looks(one)
        assert one.crew.orders == []
        one.finder.there["models"] = variant("2")
        await passes(lambda: one.crew.orders and one.crew.served.stable == variant("2"))
        one.controller.close()
        await asyncio.sleep(0)
        looks = one.finder.looks
        await asyncio.sleep(3 * LOOK_S)
        assert one.finder.looks == looks

    asyncio.run(go())


@pytest.mark.parametrize("place", ["trial", "prepare"])
def test_a_refused_version_is_tried_again_only_when_somebody_asks(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level(logging.INFO)

    async def go() -> None:
        one = bench(refresh_s=LOOK_S)
        error = VersionRefused("/kept/2: it does not load")
        if place == "trial":
            one.trials.bad["2"] = error
        else:
            one.crew.error = error
        one.finder.there["models"] = variant("2")
        await one.controller.begin()
        await passes(lambda: one.trials.tried)
        await some_looks(one)
        assert one.trials.tried == [("2", "1")]
        assert one.now.stable == variant("1")
        assert one.results == ["refused"]
        assert len(messages(caplog, "goes on as it is: /kept/2: it does not load")) == 1
        await raises(one.controller.reload("churn"), "/kept/2: it does not load")
        assert one.trials.tried == [("2", "1")] * 2
        assert one.results == ["refused"] * 2
        # What was wrong may have been the machine.
        one.trials.bad.clear()
        one.crew.error = None
        await some_looks(one)
        assert one.now.stable == variant("1")
        assert (await one.controller.reload("churn")).result == "swapped"
        # And a good version after a bad one is taken as it comes.
        one.trials.bad["3"] = error
        one.finder.there["models"] = variant("3")
        await some_looks(one)
        one.finder.there["models"] = variant("4")
        await passes(lambda: one.now.stable == variant("4"))
        one.controller.close()

    asyncio.run(go())


@pytest.mark.parametrize("place", ["trial", "prepare"])
def test_a_version_that_could_not_be_tried_is_tried_again(bench: Callable[..., Bench], place: str) -> None:
    async def go() -> None:
        one = bench(refresh_s=LOOK_S)
        error = TrialFailed("/kept/2: cannot be tried: no process is to be had")
        if place == "trial":
            one.trials.bad["2"] = error
        else:
            one.crew.error = error
        one.finder.there["models"] = variant("2")
        await one.controller.begin()
        await passes(lambda: len(one.trials.tried) > 1)
        assert one.now.stable == variant("1")
        assert set(one.results) == {"failed"}
        one.trials.bad.clear()
        one.crew.error = None
        await passes(lambda: one.now.stable == variant("2"))
        one.controller.close()

    asyncio.run(go())


def test_a_source_that_is_away_is_told_once_and_when_it_is_back(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def go() -> None:
        one = bench(refresh_s=LOOK_S)
        await one.controller.begin()
        for _ in range(2):
            one.finder.there["models"] = SourceUnavailable("models: no answer")
            await some_looks(one)
            one.finder.there["models"] = variant("1")
            await some_looks(one)
        assert len(messages(caplog, "goes on as it is: models: no answer")) == 2
        assert len(messages(caplog, "can be read again")) == 2
        assert {"failed", "unchanged"} == set(one.results)
        one.finder.there["models"] = SourceUnavailable("models: no answer")
        assert (await raises(one.controller.reload("churn"), "no answer")).retryable
        one.controller.close()

    asyncio.run(go())


def test_a_fault_of_ours_does_not_end_the_watch(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        one = bench(refresh_s=LOOK_S)
        there, one.finder.there = one.finder.there, {}  # raises KeyError
        await one.controller.begin()
        await some_looks(one)
        one.finder.there = there | {"models": variant("2")}
        await passes(lambda: one.now.stable == variant("2"))
        one.controller.close()

    asyncio.run(go())
    assert any(record.exc_info for record in caplog.records)


def test_another_name_is_refused(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench()
    # A local bundle whose name nobody gave: that of the bundle is in its path.
    one.controller._targets["churn"].settings = ModelSettings(str(tmp_path / "nothing here"))
    one.finder.there[str(tmp_path / "nothing here")] = variant("2", "price")
    asyncio.run(raises(one.controller.reload("churn"), "expected the model churn, its bundle holds one named price"))
    assert one.now.stable == variant("1")
    assert one.results == ["refused"]
    # A name of the user's own stays whatever the bundle says.
    one.controller._targets["churn"].settings = ModelSettings(str(tmp_path / "nothing here"), name="churn")
    assert asyncio.run(one.controller.reload("churn")).result == "swapped"


def test_what_is_unloaded_stays_so_until_somebody_loads_it(bench: Callable[..., Bench]) -> None:
    async def go() -> None:
        one = bench(refresh_s=LOOK_S, canary=CANARY)
        await one.controller.begin()
        one.crew.drained = asyncio.Event()
        unloading = asyncio.create_task(one.controller.unload("churn"))
        await passes(lambda: one.crew.orders[-1][0] == "drain")
        await asyncio.sleep(3 * LOOK_S)
        assert not unloading.done()  # the last request is not answered yet
        one.crew.drained.set()
        await unloading
        assert list(one.now.variants()) == []
        one.finder.there["models"] = variant("2")
        looks = one.finder.looks
        await asyncio.sleep(5 * LOOK_S)
        assert one.finder.looks == looks
        assert (await one.controller.traffic("churn")).stable is None
        assert (await one.controller.reload("churn")).version == "2"
        assert one.now.canary == variant("c1")
        assert one.now.reason == ""
        one.finder.there["models"] = variant("3")
        await passes(lambda: one.now.stable == variant("3"))
        one.controller.close()

    asyncio.run(go())


def test_a_look_that_waited_for_an_unload_loads_nothing(bench: Callable[..., Bench]) -> None:
    async def go() -> None:
        one = bench(refresh_s=LOOK_S)
        await one.controller.begin()
        one.finder.finding = asyncio.Event()
        reloading = asyncio.create_task(one.controller.reload("churn"))
        await passes(lambda: one.finder.looks)
        unloading = asyncio.create_task(one.controller.unload("churn"))
        await asyncio.sleep(3 * LOOK_S)  # the watch waits now, behind both
        one.finder.finding.set()
        await asyncio.gather(reloading, unloading)
        await asyncio.sleep(3 * LOOK_S)
        assert one.now.stable is None
        one.controller.close()

    asyncio.run(go())


def test_two_reloads_at_once_load_once(bench: Callable[..., Bench]) -> None:
    async def go() -> list[Reloaded]:
        one = bench()
        one.finder.there["models"] = variant("2")
        found = await asyncio.gather(*(one.controller.reload("churn") for _ in range(3)))
        assert [action for action, _ in one.crew.orders] == ["prepare", "serve"]
        assert one.trials.tried == [("2", "1")]
        return found

    assert [found.result for found in asyncio.run(go())] == ["swapped", "unchanged", "unchanged"]


def test_the_begin_brings_in_what_is_not_here(bench: Callable[..., Bench]) -> None:
    async def go() -> None:
        one = bench(None, canary=CANARY, shadow=ShadowSettings("shadows"))
        one.finder.steps = ("fetch: 1 of 2 MB",)
        await one.controller.begin()
        assert [role for role, _ in one.now.variants()] == ["stable", "canary", "shadow"]
        assert not one.now.is_pending
        assert (one.now.weight, one.now.sticky) == (0.25, "header:x-user")
        # The stable version is compared with nothing, the others with it.
        assert one.trials.tried == [("c1", "1"), ("s1", "1")]
        assert "fetch: 1 of 2 MB" in [deployment.reason for _, deployment in one.crew.orders]
        assert one.crew.served == one.now
        traffic = await one.controller.traffic("churn")
        assert traffic.stable is not None
        assert traffic.canary is not None
        assert traffic.shadow is not None
        assert (traffic.stable.weight, traffic.canary.weight, traffic.shadow.weight) == (0.75, 0.25, 0.0)
        assert one.finder.kept == ["/kept/1", "/kept/c1", "/kept/s1"]

    asyncio.run(go())


def test_a_reload_during_the_begin_waits_for_it(bench: Callable[..., Bench]) -> None:
    async def go() -> None:
        one = bench(None)
        one.finder.finding = asyncio.Event()
        beginning = asyncio.create_task(one.controller.begin())
        await passes(lambda: one.finder.looks)
        reloading = asyncio.create_task(one.controller.reload("churn"))
        await asyncio.sleep(0.01)
        one.finder.finding.set()
        await beginning
        assert (await reloading).result == "unchanged"
        assert [action for action, _ in one.crew.orders] == ["prepare", "serve"]

    asyncio.run(go())


def test_without_its_stable_version_nothing_begins(bench: Callable[..., Bench]) -> None:
    one = bench(None)
    one.finder.there["models"] = SourceUnavailable("models: no answer")
    asyncio.run(raises(one.controller.begin(), "models: no answer"))


@pytest.mark.parametrize("broken", ["canary", "shadow"])
@pytest.mark.parametrize("place", ["find", "trial"])
def test_a_broken_canary_or_shadow_is_left_out(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture, broken: str, place: str
) -> None:
    async def go() -> None:
        one = bench(None, canary=CANARY, shadow=ShadowSettings("shadows"), refresh_s=LOOK_S)
        source, version = {"canary": ("canaries", "c1"), "shadow": ("shadows", "s1")}[broken]
        if place == "find":
            one.finder.there[source] = ServeError("nobody knows it")
        else:
            one.trials.bad[version] = VersionRefused("it does not load")
        await one.controller.begin()
        other = {"canary": "shadow", "shadow": "canary"}[broken]
        assert [role for role, _ in one.now.variants()] == ["stable", other]
        assert "refused" in one.results
        assert len(messages(caplog, f"churn: its {broken} is left out: ")) == 1
        if broken == "canary":
            await raises(one.controller.set_traffic("churn", TrafficChange(CanaryChange(0.5))), "has no canary")
        # It is looked for again, and what is wrong with it holds up nothing else.
        one.finder.there["models"] = variant("2")
        await passes(lambda: one.now.stable == variant("2"))
        one.finder.there[source] = variant(version + "b")
        await passes(lambda: one.now.variant(broken) == variant(version + "b"))
        one.controller.close()

    asyncio.run(go())


def test_a_part_that_fails_holds_up_no_other(bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        one = bench(canary=CANARY)
        await one.controller.begin()
        one.finder.there |= {"models": variant("2"), "canaries": ServeError("nobody knows it")}
        assert (await one.controller.reload("churn")).result == "swapped"
        assert (one.now.stable, one.now.canary) == (variant("2"), variant("c1"))
        assert messages(caplog, "churn: its canary is left out: nobody knows it")
        assert one.results == ["refused", "swapped"]
        # Now nothing new came of it.
        await raises(one.controller.reload("churn"), "nobody knows it")

    asyncio.run(go())


def test_weights_change_and_are_kept(bench: Callable[..., Bench], tmp_path: Path) -> None:
    async def go() -> None:
        one = bench(canary=CANARY, state=tmp_path / "state.json")
        await raises(one.controller.set_traffic("churn", TrafficChange(CanaryChange(0.5))), "churn has no canary")
        await one.controller.begin()
        for weight in (0.5, 1.0, 0.0, 0.75):
            traffic = await one.controller.set_traffic("churn", TrafficChange(CanaryChange(weight)))
            assert traffic.canary is not None
            assert traffic.canary.weight == one.crew.served.weight == weight
            assert one.crew.served.canary == variant("c1")
        assert ("weight", "c1", 0.75) in one.metrics.counted
        # The next server goes on with it, and so does the next version of the canary.
        other = bench(canary=CANARY, state=tmp_path / "state.json")
        await other.controller.begin()
        assert other.now.weight == 0.75
        other.finder.there["canaries"] = variant("c2")
        assert (await other.controller.reload("churn")).result == "swapped"
        assert (other.now.canary, other.now.weight) == (variant("c2"), 0.75)

    asyncio.run(go())


def test_a_failing_canary_is_taken_back(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def go() -> None:
        one = bench(canary=CANARY, state=tmp_path / "state.json")
        await one.controller.begin()
        count = one.controller.count
        count("churn", "digest of a former one", Counts(100, 100, 0))
        count("churn", "digest c1", Counts(9, 9, 0))  # too few to judge
        await asyncio.sleep(0.01)
        assert one.now.weight == 0.25
        for _ in range(3):  # from several workers, before the first is heard
            count("churn", "digest c1", Counts(10, 5, 0))
        await passes(lambda: one.crew.served.weight == 0.0)
        await asyncio.sleep(0.01)
        assert len(messages(caplog, "its canary c1 is taken back: ")) == 1
        assert one.metrics.counted.count(("rolled_back", "c1")) == 1
        traffic = await one.controller.traffic("churn")
        assert traffic.rolled_back is not None
        assert "failed" in traffic.rolled_back
        assert traffic.canary is not None
        assert (traffic.canary.version, traffic.canary.weight) == ("c1", 0.0)
        # It stays so, for the next server too.
        assert (await one.controller.reload("churn")).result == "unchanged"
        other = bench(canary=CANARY, state=tmp_path / "state.json")
        await other.controller.begin()
        assert other.now.weight == 0.0
        assert (await other.controller.traffic("churn")).rolled_back == traffic.rolled_back
        # Whoever gives it another try starts its account anew.
        assert (await one.controller.set_traffic("churn", TrafficChange(CanaryChange(0.5)))).rolled_back is None
        count("churn", "digest c1", Counts(9, 9, 0))
        await asyncio.sleep(0.01)
        assert one.now.weight == 0.5
        count("churn", "digest c1", Counts(1, 1, 0))
        await passes(lambda: one.now.weight == 0.0)
        # The next canary begins with the weight that is configured.
        one.finder.there["canaries"] = variant("c2")
        assert (await one.controller.reload("churn")).result == "swapped"
        assert one.now.weight == 0.25
        assert (await one.controller.traffic("churn")).rolled_back is None

    asyncio.run(go())


def test_a_canary_does_not_pay_for_the_one_before(bench: Callable[..., Bench]) -> None:
    async def go() -> None:
        one = bench(canary=CANARY)
        await one.controller.begin()
        one.finder.finding = asyncio.Event()
        one.finder.there["canaries"] = variant("c2")
        reloading = asyncio.create_task(one.controller.reload("churn"))
        await asyncio.sleep(0.01)
        one.controller.count("churn", "digest c1", Counts(100, 100, 0))  # heard while its successor comes
        await asyncio.sleep(0.01)
        one.finder.finding.set()
        await reloading
        await asyncio.sleep(0.01)
        assert (one.now.canary, one.now.weight) == (variant("c2"), 0.25)

    asyncio.run(go())


def test_a_trial_that_hangs_is_ended(
    bench: Callable[..., Bench], first: Path, second: Path, poison_second: Callable[[str, str], Path], monkeypatch: Any
) -> None:
    from fairlead.bundle.read import open_bundle
    from fairlead.repository.trial import try_bundle

    monkeypatch.setattr(controller, "try_bundle", try_bundle)
    monkeypatch.setattr(controller, "_TRIAL_S", 1.5)
    poison_second("load", "hang")
    one = bench(Variant.of(open_bundle(first)), name="churn")
    one.finder.there["models"] = Variant.of(open_bundle(second))
    asyncio.run(raises(one.controller.reload("churn"), "did not come to an end in 1.5 s"))
    assert one.now.stable == Variant.of(open_bundle(first))
    assert one.results == ["refused"]

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import BundleError, ConfigError, ServeError
from fairlead.monitor.metrics import Metrics
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from fairlead.repository.deployments import Deployment
from fairlead.repository.rollback import Counts
from fairlead.stream.envelope import Envelope
from fairlead.stream.models import Models
from streams import Pricers, event, models_of, record, variant

ENVELOPE = Envelope((), ("id",))


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    directory = prepare_directory()
    yield Metrics()
    remove_directory(directory)


def rendered(metrics: Metrics) -> str:
    return metrics.render("")[0].decode()


async def change(models: Models, bundle: Path, **more: Any) -> None:
    served = Deployment(name="price", stable=variant(bundle), **more)
    await models.prepare(served)
    await models.serve(served)


def answer_of(models: Models) -> Any:
    assert models.team is not None
    (found,) = models.team.score([record(event(1))], gives_up=False)
    return found


def test_a_version_takes_the_place_of_another(pricers: Pricers, metrics: Metrics) -> None:
    async def work() -> None:
        models = Models("price", ENVELOPE, 1000, metrics)
        assert (models.team, models.deployment.is_pending) == (None, True)
        waiting = asyncio.create_task(models.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        for version in ("1", "2"):
            await change(models, pricers.build(version))
            await waiting
            assert answer_of(models).version == version
            assert models.deployment.stable == variant(pricers.build(version))
        (info,) = [line for line in rendered(metrics).splitlines() if line.startswith("fairlead_model_info")]
        assert 'version="2"' in info
        assert info.endswith(" 1.0")
        await models.serve(Deployment(name="price", reason="it was taken away"))
        assert models.team is None
        waiting = asyncio.create_task(models.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(work())


def test_a_version_that_answers_is_not_loaded_again(pricers: Pricers) -> None:
    async def work() -> None:
        models = await models_of(pricers.build("1"), ENVELOPE)
        before = models.team
        assert before is not None
        await change(models, pricers.build("1"), canary=variant(pricers.build("2")), weight=0.5)
        assert models.team is not None
        assert models.team.canary is not None
        assert models.team.stable is before.stable
        canary = models.team.canary
        await change(models, pricers.build("2"))
        assert models.team.stable is canary
        assert models.team.canary is None

    asyncio.run(work())


def test_what_those_who_read_the_answers_could_not_use_is_refused(pricers: Pricers) -> None:
    async def work() -> None:
        models = await models_of(pricers.build("1"), ENVELOPE)
        other = pricers.build("3", "cost")
        with pytest.raises(ServeError, match="price: version 3 cannot take the place of 1: output price"):
            await change(models, other)
        with pytest.raises(ServeError, match="cannot take the place of 1"):
            await change(models, pricers.build("1"), canary=variant(other), weight=0.5)
        assert answer_of(models).version == "1"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("sticky", "told"),
    [("cookie:session", "events have no cookies"), ("feature:colour", "expected one of the model's")],
)
def test_a_canary_is_not_parted_by_what_events_have_not(pricers: Pricers, sticky: str, told: str) -> None:
    async def work() -> None:
        models = await models_of(pricers.build("1"), ENVELOPE)
        with pytest.raises((ConfigError, ServeError), match=told):
            await change(models, pricers.build("1"), canary=variant(pricers.build("2")), weight=0.5, sticky=sticky)
        assert models.team is not None
        assert models.team.canary is None

    asyncio.run(work())


def test_an_id_in_the_place_of_an_output_is_refused(pricers: Pricers) -> None:
    with pytest.raises(ConfigError, match="id: price is an output of the model too"):
        asyncio.run(models_of(pricers.build("1"), Envelope((), ("price",))))


def test_a_bundle_that_has_changed_since_is_refused(pricers: Pricers, tmp_path: Path) -> None:
    async def work() -> None:
        models = await models_of(pricers.build("1"), ENVELOPE)
        bundle = shutil.copytree(pricers.build("2"), tmp_path / "price")
        served = Deployment(name="price", stable=variant(bundle))
        shutil.rmtree(bundle)
        shutil.copytree(pricers.build("3"), bundle)
        with pytest.raises(BundleError, match="changed since it was taken into service: load price again"):
            await models.prepare(served)
        assert answer_of(models).version == "1"

    asyncio.run(work())


def test_one_that_takes_too_long_to_load_is_refused(pricers: Pricers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.stream.models._LOAD_S", 0.0)
    with pytest.raises(ServeError, match="price: it did not load within 0 s"):
        asyncio.run(models_of(pricers.build("1")))


def test_what_a_canary_did_is_passed_on(pricers: Pricers) -> None:
    async def work() -> None:
        told: list[tuple[str, str, Counts]] = []
        models = await models_of(pricers.build("1"), ENVELOPE)
        models.on_canary = lambda *counts: told.append(counts)
        canary = variant(pricers.build("2"))
        await change(models, pricers.build("1"), canary=canary, weight=1.0, max_latency_s=1e-9)
        team = models.team
        assert team is not None
        models.tell()
        assert told == []
        good = [record(event(number), number) for number in range(5)]
        await asyncio.to_thread(team.score, [*good, record(event(9, size=13))], gives_up=True)
        await asyncio.sleep(0)
        models.tell()
        models.tell()
        assert told == [("price", canary.digest, Counts(requests=6, failed=1, slow=6))]

    asyncio.run(work())


def test_runs_and_ignored_keys_are_counted(pricers: Pricers, metrics: Metrics) -> None:
    async def work() -> None:
        models = Models("price", ENVELOPE, 1000, metrics)
        await change(models, pricers.build("1"))
        assert models.team is not None
        for _ in range(2):
            models.team.score([record(event(1, more=1)), record(event(2)), record(b"")], gives_up=False)
            await asyncio.sleep(0)
            models.tell()
            models.tell()

    asyncio.run(work())
    lines = rendered(metrics).splitlines()
    for name, value in (("rows", 4), ("rejected_records", 2), ("ignored_keys", 2)):
        assert f'fairlead_{name}_total{{model="price",version="1"}} {float(value)}' in lines
    assert 'fairlead_batch_rows_count{model="price",version="1"} 2.0' in lines

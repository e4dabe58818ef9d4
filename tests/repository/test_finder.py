"""The process beside a server that brings bundles, and what becomes of wishes when it fails."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.read import open_bundle
from fairlead.config import CacheSettings, is_address
from fairlead.errors import BundleError, SourceError, SourceUnavailable
from fairlead.repository import finder
from fairlead.repository.deployments import Variant
from fairlead.repository.finder import ProcessFinder, default_name, is_bundle

Go = Callable[[ProcessFinder], Awaitable[Any]]


@pytest.fixture
def cache(tmp_path: Path) -> CacheSettings:
    return CacheSettings(str(tmp_path / "cache"), timeout_s=30)


def using(cache: CacheSettings, go: Go) -> Any:
    """Do something with a finder, and see that nothing of it is left."""

    async def whole() -> Any:
        one = ProcessFinder(cache)
        try:
            return await asyncio.wait_for(go(one), 60)
        finally:
            await asyncio.wait_for(one.close(), 5)
            assert one._process is None or one._process.returncode is not None

    return asyncio.run(whole())


def quiet(text: str) -> None:
    """Be told how far it is, and keep it."""


async def find(one: ProcessFinder, source: Path | str, is_kept: bool = False, name: str = "second") -> Variant:
    return await one.find(str(source), name, is_kept=is_kept, report=quiet)


def test_a_local_bundle_is_itself_and_needs_no_process(cache: CacheSettings, second: Path) -> None:
    async def go(one: ProcessFinder) -> None:
        assert await find(one, second) == Variant.of(open_bundle(second))
        assert one._process is None
        one.keep([])
        with pytest.raises(BundleError, match="not a bundle"):
            await find(one, second / "nowhere")

    using(cache, go)


def test_a_kept_bundle_outlives_a_change_of_its_directory(cache: CacheSettings, second: Path, tmp_path: Path) -> None:
    async def go(one: ProcessFinder) -> None:
        source = shutil.copytree(second, tmp_path / "second")
        before = await find(one, source, is_kept=True)
        assert before.digest == open_bundle(second).digest
        assert not Path(before.path).is_relative_to(source)
        assert await find(one, source, is_kept=True) == before
        (source / "input_example.json").write_bytes(b"{}")
        # A change is noticed, told as what it is, and touches no byte of what was kept.
        with pytest.raises(SourceError, match=r"input_example\.json: changed since") as caught:
            await find(one, source, is_kept=True)
        assert not caught.value.retryable
        assert open_bundle(Path(before.path)).digest == before.digest
        shutil.rmtree(source)
        with pytest.raises(SourceError, match="second"):
            await find(one, source, is_kept=True)

    using(cache, go)


def test_a_plain_model_is_built_once(cache: CacheSettings, tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    model = tmp_path / "slope.pkl"
    model.write_bytes(pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])))
    told: list[str] = []

    class Watched:
        steps: list[str] = []  # noqa: RUF012  # one for all is meant

        def step(self, text: str) -> None:
            self.steps.append(text)

        def bytes(self, done: int, total: int | None) -> None:
            raise AssertionError("there is nothing to fetch")

    async def go(one: ProcessFinder) -> None:
        one.progress = Watched()
        found = await one.find(str(model), "slope", is_kept=True, report=told.append)
        assert (found.name, open_bundle(Path(found.path)).digest) == ("slope", found.digest)
        steps = len(told)
        assert steps
        assert Watched.steps == told
        started = time.monotonic()
        assert await one.find(str(model), "slope", is_kept=True, report=told.append) == found
        assert time.monotonic() - started < 2
        assert not any("build" in step for step in told[steps:])

    using(cache, go)


def test_what_has_not_changed_is_not_read_again(cache: CacheSettings, second: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(second, tmp_path / "copy")

    async def go(one: ProcessFinder) -> None:
        before = await find(one, copy, is_kept=True)
        kept = Path(before.path) / "MLmodel"
        # Would be refused if it was read: the directory that it was copied from is only looked at.
        data = kept.read_bytes()
        kept.chmod(0o600)
        kept.write_bytes(data + b"x")
        assert await find(one, copy, is_kept=True) == before
        kept.write_bytes(data)
        os.utime(copy / "MLmodel", (1, 1))
        assert await find(one, copy, is_kept=True) == before
        shutil.rmtree(copy)
        with pytest.raises(SourceError):
            await find(one, copy, is_kept=True)

    using(cache, go)


def test_another_takes_the_place_of_one_that_was_killed(cache: CacheSettings, second: Path, tmp_path: Path) -> None:
    async def go(one: ProcessFinder) -> None:
        before = await find(one, second, is_kept=True)
        assert one._process is not None
        killed = one._process.pid
        # In the middle of a wish, so that somebody waits.
        os.kill(killed, signal.SIGSTOP)
        waiting = [asyncio.create_task(find(one, second, is_kept=True)) for _ in range(2)]
        await asyncio.sleep(0.1)
        os.kill(killed, signal.SIGKILL)
        for one_waiting in waiting:
            with pytest.raises(SourceUnavailable, match="ended with exit code -9") as caught:
                await one_waiting
            assert caught.value.retryable
        assert await find(one, second, is_kept=True) == before
        assert one._process.pid != killed
        # Between two wishes.
        os.kill(one._process.pid, signal.SIGKILL)
        await one._process.wait()
        one.keep([before.path])
        assert await find(one, second, is_kept=True) == before

    using(cache, go)


def test_whoever_watches_may_go_away(cache: CacheSettings, tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    model = tmp_path / "slope.pkl"
    model.write_bytes(pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])))

    class Gone:
        def step(self, text: str) -> None:
            raise OSError("the terminal is gone")

        def bytes(self, done: int, total: int | None) -> None:
            raise OSError("the terminal is gone")

    async def go(one: ProcessFinder) -> None:
        one.progress = Gone()
        with pytest.raises(SourceUnavailable, match="ended with exit code"):
            await find(one, model, is_kept=True, name="slope")
        one.progress = None
        assert (await find(one, model, is_kept=True, name="slope")).name == "slope"

    using(cache, go)


def test_a_hang_is_bounded(cache: CacheSettings, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_GRACE_S", 0.3)

    async def go(one: ProcessFinder) -> None:
        before = await find(one, second, is_kept=True)
        assert one._process is not None
        os.kill(one._process.pid, signal.SIGSTOP)
        object.__setattr__(one, "_settings", CacheSettings(cache.directory, timeout_s=0.2))
        with pytest.raises(SourceUnavailable, match=r"within 0\.2 s \(cache\.timeout_s\), got no answer"):
            await find(one, second, is_kept=True)
        object.__setattr__(one, "_settings", cache)
        assert await find(one, second, is_kept=True) == before  # by another process

    using(cache, go)


# Stands in for a library that writes to where the process tells its server.
NOISE = """
import os, sys
import msgspec
sys.argv[1:] = [sys.argv[-1]]
from fairlead.repository import finder

class Noisy(finder._Service):
    def _fulfil(self, wish):
        print("a library's own words")
        os.write(1, b'{"type": "Failed", "number": %d, "error": "", "is_retryable": true}\\n' % wish.number)
        os.write(self._out, b"INFO: 3 of 9 done\\n\\xff\\xfe\\n{}\\n[1]\\n\\n")
        os.write(self._out, b'{"type": "Had", "number": %d}\\n' % wish.number)
        os.write(self._out, b'{"type": "Step", "number": 999, "step": "of nobody"}\\n')
        os.write(self._out, b"x" * 300_000 + b"\\n")
        super()._fulfil(wish)

Noisy(msgspec.json.decode(sys.argv[1], type=finder.CacheSettings)).run()
"""


def test_lines_that_are_no_news_are_passed_over(
    cache: CacheSettings,
    second: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = tmp_path / "noisy.py"
    script.write_text(NOISE)
    exec_ = asyncio.create_subprocess_exec

    async def noisy(*command: str, **how: Any) -> asyncio.subprocess.Process:
        return await exec_(sys.executable, str(script), command[-1], **how)

    async def go(one: ProcessFinder) -> None:
        for _ in range(2):
            found = await asyncio.wait_for(find(one, second, is_kept=True), 10)
            assert found.digest == open_bundle(second).digest

    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(asyncio, "create_subprocess_exec", noisy)
        using(cache, go)
    assert "INFO: 3 of 9 done" in caplog.text


def test_it_ends_with_its_server(cache: CacheSettings, second: Path, tmp_path: Path) -> None:
    async def go(one: ProcessFinder) -> int:
        await find(one, second, is_kept=True)
        assert one._process is not None
        assert one._process.stdin is not None
        # As when the server was killed: nobody holds the other end any more.
        one._process.stdin.close()
        await asyncio.wait_for(one._process.wait(), 5)
        return one._process.returncode or 0

    assert using(cache, go) == 0


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("models:/churn@champion", "churn"),
        ("models:/churn/7", "churn"),
        ("models:/churn/Production", "churn"),
        ("models:/Churn model, v2@champion", "Churn-model-v2"),
        ("runs:/0123456789abcdef/model", "model"),
        ("runs:/0123456789abcdef/models/churn/", "churn"),
        ("s3://bucket/models/churn", "churn"),
        ("s3://bucket/models/churn.pkl", "churn"),
        ("s3://bucket", "bucket"),
        ("https://example.org/files/churn-1.2.tar.gz#sha256=00ff", "churn-1.2"),
        ("https://example.org/churn.zip#sha256=00ff", "churn"),
        ("mlflow-artifacts:/1/abc/artifacts/churn", "churn"),
        ("models/churn.joblib", "churn"),
        ("models/churn", "churn"),
        ("/a/b/ünïque näme.pkl", "n-que-n-me"),
    ],
)
def test_a_source_tells_a_name(source: str, name: str) -> None:
    assert default_name(source) == name


@pytest.mark.parametrize("source", ["models/---.pkl", "/", "https://example.org/%%%"])
def test_a_source_without_a_name_is_refused(source: str) -> None:
    with pytest.raises(SourceError, match=r"give it one in fairlead\.yaml"):
        default_name(source)


def test_sources_are_told_apart(second: Path, tmp_path: Path) -> None:
    assert is_address("models:/churn@champion")
    assert not any(map(is_address, ["churn", "./a:b/churn", "module:Class", "/models:/x", "C:/x"]))
    assert is_bundle(str(second))
    assert is_bundle(str(tmp_path / "nowhere"))
    assert not is_bundle("s3://bucket/churn")
    assert not is_bundle(str(tmp_path))

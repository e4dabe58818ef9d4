"""Traffic is kept over restarts, and never stands against who edits the configuration."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from fairlead.config import CanarySettings
from fairlead.repository.state import CanaryTraffic, Rollback, TrafficState, deployment_key, state_path

CANARY = CanarySettings("models:/churn@challenger", 0.1, "header:x-user-id")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "one.json"


def state(path: Path | None) -> TrafficState:
    return TrafficState(path, "/srv/fairlead.yaml")


def test_without_a_change_the_configured_weight_counts(path: Path) -> None:
    assert state(path).canary("churn", CANARY, "a") == CanaryTraffic(0.1)
    assert not path.exists()


def test_a_weight_is_kept_whatever_version_the_canary_is(path: Path) -> None:
    state(path).set_weight("churn", CANARY, 0.5)
    after = state(path)
    assert after.canary("churn", CANARY, "a") == after.canary("churn", CANARY, "b") == CanaryTraffic(0.5)
    assert after.canary("price", CANARY, "a") == CanaryTraffic(0.1)


@pytest.mark.parametrize(
    "edited",
    [
        replace(CANARY, source="models:/churn@next"),
        replace(CANARY, weight=0.2),
        replace(CANARY, sticky="cookie:session"),
        replace(CANARY, sticky=None),
    ],
)
def test_whoever_edits_the_configuration_has_the_last_word(path: Path, edited: CanarySettings) -> None:
    state(path).set_weight("churn", CANARY, 0.5)
    state(path).roll_back("price", CANARY, Rollback("a", "slow"))
    after = state(path)
    assert after.canary("churn", edited, "a") == after.canary("price", edited, "a") == CanaryTraffic(edited.weight)
    after.set_weight("churn", edited, 0.7)
    assert state(path).canary("churn", edited, "a") == CanaryTraffic(0.7)
    assert state(path).canary("churn", CANARY, "a") == CanaryTraffic(0.1)


def test_other_bounds_are_no_other_canary(path: Path) -> None:
    state(path).set_weight("churn", CANARY, 0.5)
    assert state(path).canary("churn", replace(CANARY, min_requests=5, max_latency_s=1.0), "a").weight == 0.5


def test_a_rollback_stays_with_its_version(path: Path) -> None:
    one = state(path)
    one.set_weight("churn", CANARY, 0.5)
    one.roll_back("churn", CANARY, Rollback("a", "12 of 100 failed"))
    after = state(path)
    assert after.canary("churn", CANARY, "a") == CanaryTraffic(0.0, "12 of 100 failed")
    assert after.canary("churn", CANARY, "b") == CanaryTraffic(0.1)
    after.set_weight("churn", CANARY, 0.3)
    assert state(path).canary("churn", CANARY, "a") == CanaryTraffic(0.3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"deployment": "x"',
        b'{"deployment": "x", "canaries": {"churn": {"weight": 2}}}',
        b'{"deployment": "x", "canaries": {"c": {"source": "s", "configured_weight": 0, "sticky": null, "weight": 2}}}',
    ],
)
def test_a_broken_file_is_told_and_passed_over(path: Path, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    one = state(path)
    assert one.canary("churn", CANARY, "a") == CanaryTraffic(0.1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{path}: passed over: expected the traffic of a former run: ")
    one.set_weight("churn", CANARY, 0.5)
    assert state(path).canary("churn", CANARY, "a") == CanaryTraffic(0.5)


def test_a_file_that_cannot_be_read_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir(parents=True)
    assert state(path).canary("churn", CANARY, "a") == CanaryTraffic(0.1)
    assert "Is a directory" in caplog.text


def test_what_cannot_be_written_is_told_and_holds_till_the_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.write_text("no directory")
    one = state(path)
    one.set_weight("churn", CANARY, 0.5)
    assert one.canary("churn", CANARY, "a") == CanaryTraffic(0.5)
    assert f"churn: its traffic is not kept for the next start: {path} cannot be written: " in caplog.text


def test_nowhere_to_keep_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    one = state(None)
    one.roll_back("churn", CANARY, Rollback("a", "slow"))
    assert one.canary("churn", CANARY, "a") == CanaryTraffic(0.0, "slow")
    assert "set web.state_directory" in caplog.text


def test_a_full_disk_leaves_what_was_there(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = state(path)
    one.set_weight("churn", CANARY, 0.5)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        one.set_weight("churn", CANARY, 0.6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "cannot be written: File too large" in caplog.text
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    script = f"""
from pathlib import Path
from fairlead.config import CanarySettings
from fairlead.repository.state import TrafficState
state = TrafficState(Path({str(path)!r}), "x")
print("begun", flush=True)
while True:
    for n in range(50):
        state.set_weight(f"model {{n}}", CanarySettings("s", 0.1), n / 50)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        until_s, seen = time.monotonic() + 20, set[bytes]()
        while len(seen) < 20 and time.monotonic() < until_s:
            if path.exists():
                seen.add(path.read_bytes())
        writer.kill()
    assert len(seen) == 20
    for data in seen:
        json.loads(data)


def test_the_file_tells_people_whose_it_is(path: Path) -> None:
    state(path).set_weight("churn", CANARY, 0.5)
    assert json.loads(path.read_bytes())["deployment"] == "/srv/fairlead.yaml"


def test_a_deployment_is_known_by_its_file_else_by_its_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert deployment_key(Path("fairlead.yaml"), ["a"]) == str(tmp_path / "fairlead.yaml")
    assert deployment_key(None, ["b", "a"]) == deployment_key(None, ["a", "b"])


def test_the_directory_is_the_one_set_else_the_user_s() -> None:
    one = state_path("/var/lib/fairlead", {"XDG_STATE_HOME": "/x"}, "a")
    assert one is not None
    assert one.parent == Path("/var/lib/fairlead")
    other = state_path(None, {"XDG_STATE_HOME": "/x", "HOME": "/home/me"}, "b")
    assert other is not None
    assert other.parent == Path("/x/fairlead")
    assert other.name != one.name
    for environ in ({"HOME": "/home/me"}, {"HOME": "/home/me", "XDG_STATE_HOME": "relative"}):
        home = state_path(None, environ, "a")
        assert home == Path("/home/me/.local/state/fairlead") / one.name
    assert state_path(None, {}, os.fsdecode(b"/srv/\xff")) is None

"""New versions that are good, and every kind that must not come into service."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.errors import TrialFailed, VersionRefused
from fairlead.repository.trial import Comparison, try_bundle
from repository.conftest import Advisers

Poison = Callable[[str, str], Path]
TIMEOUT_S = 60.0


def tried(new: Path, current: Path | None = None, timeout_s: float = TIMEOUT_S) -> Comparison:
    return asyncio.run(try_bundle(new, current, timeout_s))


def refusal(new: Path, current: Path | None = None, timeout_s: float = TIMEOUT_S) -> VersionRefused:
    with pytest.raises(VersionRefused) as caught:
        tried(new, current, timeout_s)
    assert str(caught.value).startswith(f"{new}")
    assert "Traceback" not in str(caught.value)
    assert not caught.value.retryable
    return caught.value


def test_a_good_version_passes(first: Path, second: Path) -> None:
    assert tried(first, first) == Comparison(2, 0.0)
    assert tried(second) == Comparison(1, None)
    found = tried(second, first)
    # Of 6 and 8, by 0.5.
    assert found == Comparison(2, pytest.approx(0.5 / 6))
    assert str(found) == "answers 2 examples, within 0.0833 of the current version"


def test_a_compiled_bundle_passes(iris_bundle: Path) -> None:
    assert tried(iris_bundle, iris_bundle) == Comparison(2, 0.0)


@pytest.mark.parametrize(
    ("difference", "told"),
    [(None, "answers 1 example"), (math.inf, "answers 1 example, with another label than the current version")],
)
def test_a_comparison_is_told(difference: float | None, told: str) -> None:
    assert str(Comparison(1, difference)) == told


def test_a_changed_bundle_is_refused(second: Path, first: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(second, copy)
    with (copy / "input_example.json").open("ab") as file:
        file.write(b" ")
    changed = f"{copy}/input_example.json: changed since the bundle was built: restore it or build again"
    assert str(refusal(copy, first)) == changed
    assert "not a bundle" in str(refusal(tmp_path / "none", first))


@pytest.mark.parametrize(
    ("place", "what", "told"),
    [
        ("import", "raise", "(KeyError: 'town')"),
        ("import", "exit", "(SystemExit: no more)"),
        ("load", "raise", "KeyError"),
        ("load", "kill", "crashed with SIGKILL, maybe for want of memory, while it was loaded"),
        ("ask", "exit", "SystemExit: no more while it predicted its own example"),
        ("ask", "segfault", "crashed with SIGSEGV while it predicted its own example"),
        ("gouda", "raise", "KeyError: 'town'"),
        ("gouda", "_exit", "ended the process with status 3 while it predicted the current version's example"),
        (
            "gouda",
            "abort",
            "crashed with SIGABRT while it predicted the current version's example: terminate called after throwing "
            "an instance of 'std::bad_alloc'",
        ),
    ],
)
def test_a_version_that_fails_is_refused(
    first: Path, second: Path, poison_second: Poison, place: str, what: str, told: str
) -> None:
    poison_second(place, what)
    error = refusal(second, first)
    assert told in str(error)


def test_a_version_that_hangs_is_refused_in_time(second: Path, poison_second: Poison) -> None:
    poison_second("ask", "hang")
    start_s = time.monotonic()
    error = refusal(second, timeout_s=2.0)
    assert time.monotonic() - start_s < 20
    assert str(error).startswith(f"{second}: did not come to an end in 2 s while it ")
    assert error.written == ""


def test_what_a_version_prints_is_not_what_is_told(second: Path, poison_second: Poison) -> None:
    poison_second("ask", "print")
    assert tried(second) == Comparison(1, None)


def test_a_thread_left_behind_holds_nobody_up(second: Path, poison_second: Poison) -> None:
    poison_second("load", "thread")
    assert tried(second, timeout_s=30) == Comparison(1, None)


def test_what_a_version_started_ends_with_it(second: Path, poison_second: Poison) -> None:
    poison = poison_second("load", "child")
    assert tried(second, timeout_s=30) == Comparison(1, None)
    child, detached = map(int, poison.with_name("children").read_text().split())
    os.kill(detached, signal.SIGKILL)  # it left the group, and holds the pipe open
    until_s = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_other_inputs_and_outputs_are_told(first: Path, iris_bundle: Path) -> None:
    error = str(refusal(iris_bundle, first))
    assert "expected what can take the place of version first, got other inputs or outputs: " in error
    assert "feature sepal_length: new and required; give it a default" in error


def test_answers_of_another_form_are_told(advisers: Advisers, first: Path) -> None:
    number = advisers.build("number", answer="size * 2")
    assert "output prediction: a number, and an object before" in str(refusal(number, first))
    lacking = advisers.build("lacking", answer="{'town': town}")
    assert "output prediction: without score" in str(refusal(lacking, first))
    more = advisers.build("more", answer="{'score': size * 2, 'town': town, 'more': 1}")
    assert tried(more, first) == Comparison(2, math.inf)


@pytest.mark.parametrize("what", ["raise", "kill"])
def test_the_current_version_s_own_trouble_is_not_held_against_the_new(
    advisers: Advisers, first: Path, second: Path, what: str
) -> None:
    poison = advisers.poison("first", "ask", what)
    try:
        with pytest.raises(TrialFailed, match=f"^{second}: cannot be tried: ") as caught:
            tried(second, first)
    finally:
        poison.unlink()
    assert caught.value.retryable


def test_a_current_version_that_is_gone_is_told(second: Path, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=f"cannot be tried: {tmp_path}/gone: not a bundle"):
        tried(second, tmp_path / "gone")


def test_no_process_to_be_had_is_told(second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TrialFailed, match=f"^{second}: cannot be tried: No such file or directory$"):
        tried(second)


def test_a_trial_that_is_called_off_leaves_nothing(
    second: Path, poison_second: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_second("ask", "hang")

    async def call_off() -> None:
        trial = asyncio.create_task(try_bundle(second, None, TIMEOUT_S))
        until_s = time.monotonic() + 30
        while not (found := trials_of(os.getpid())):
            assert time.monotonic() < until_s
            await asyncio.sleep(0.01)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert not any(map(is_alive, found))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asyncio.run(call_off())
    assert not list(tmp_path.iterdir())


def test_a_trial_ends_with_who_asked(second: Path, poison_second: Poison, tmp_path: Path) -> None:
    poison_second("ask", "hang")
    script = (
        f"import asyncio; from fairlead.repository.trial import *; asyncio.run(try_bundle({str(second)!r}, None, 60))"
    )
    asker = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"TMPDIR": str(tmp_path)})
    until_s = time.monotonic() + 30
    while not (found := trials_of(asker.pid)):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    asker.kill()
    asker.wait()
    while any(map(is_alive, found)):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def trials_of(pid: int) -> list[int]:
    """Give the trials that a process has running."""
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for some in children for child in some if is_trial(child)]


def is_trial(pid: str) -> bool:
    return b"fairlead.repository.trial" in Path(f"/proc/{pid}/cmdline").read_bytes()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

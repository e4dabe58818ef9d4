"""Builds in a process of their own, of models that print, crash, hang and lose whoever asked."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from fairlead.bundle.build import BuildOptions
from fairlead.bundle.build_process import BuildRequest, build_apart
from fairlead.bundle.read import open_bundle
from fairlead.errors import FairleadError, NotFitted, SourceError, UnsafePickle

ASK = """
import sys
from pathlib import Path
from fairlead.bundle.build_process import BuildRequest, build_apart
build_apart(BuildRequest("rules:Rules", "rules:Rules", "rules", None), Path("out"), 60, lambda step: None)
"""


def request_of(source: object, options: BuildOptions | None = None) -> BuildRequest:
    return BuildRequest(str(source), "models:/churn@champion", "churn", "3", options)


def rules(directory: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """Write a class whose making runs `body`."""
    (directory / "rules.py").write_text(
        f"import os, sys, time\n\n\nclass Rules:\n    def __init__(self) -> None:\n        {body}\n\n"
        "    def predict(self, size: float) -> float:\n        return size\n"
    )
    monkeypatch.chdir(directory)
    return request_of("rules:Rules")


def build(request: BuildRequest, directory: Path, timeout_s: float = 240) -> tuple[str, ...]:
    return build_apart(request, directory / "out", timeout_s, lambda step: None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])))
    return path


def test_a_bundle_is_built_and_its_steps_are_told(model: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    build_apart(request_of(model), tmp_path / "out", 240, steps.append)
    manifest = open_bundle(tmp_path / "out").manifest
    assert (manifest.name, manifest.version) == ("churn", "3")
    assert steps == ["load", "schema", "compile", "parity", "write"]


def test_what_the_options_say_goes_first(model: Path, tmp_path: Path) -> None:
    build(request_of(model, BuildOptions(name="mine", version="9", engine="native")), tmp_path)
    manifest = open_bundle(tmp_path / "out").manifest
    assert (manifest.name, manifest.version, manifest.engine) == ("mine", "9", "native")


def test_a_model_that_prints_does_not_disturb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = rules(tmp_path, 'print("}{"); sys.stdout.flush(); os.write(1, b"x")', monkeypatch)
    module = tmp_path / "rules.py"
    module.write_text(module.read_text().replace("size: float) -> float", "size)"))
    warnings = build(request, tmp_path)
    open_bundle(tmp_path / "out")
    assert [warning for warning in warnings if "annotate it" in warning] == list(warnings) != []


@pytest.mark.parametrize(
    ("data", "kind"), [(pickle.dumps(LogisticRegression()), NotFitted), (b"cos\nsystem\n.", UnsafePickle)]
)
def test_an_error_keeps_its_kind_and_names_the_source(tmp_path: Path, data: bytes, kind: type[FairleadError]) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    with pytest.raises(kind) as error:
        build(request_of(path), tmp_path)
    assert str(path) not in str(error.value)


def test_an_error_that_carries_more_is_told_by_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = rules(tmp_path, "pass", monkeypatch)
    options = BuildOptions(engine="onnx")
    with pytest.raises(SourceError, match="no compiled form"):
        build(BuildRequest(request.source, request.told_as, "churn", None, options), tmp_path)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV: the model, or a library that it needs, crashed"),
        ("os.kill(os.getpid(), 9)", "was killed, as a system does that runs out of memory"),
        ('sys.stderr.write("last words\\n"); sys.stderr.flush(); os._exit(7)', "ended with code 7: .*\n  last words"),
    ],
)
def test_a_crash_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str) -> None:
    with pytest.raises(SourceError, match=rf"models:/churn@champion: building it {told}"):
        build(rules(tmp_path, body, monkeypatch), tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_build_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"building it was ended after 3 s \(cache\.timeout_s\)"):
        build(rules(tmp_path, "time.sleep(60)", monkeypatch), tmp_path, timeout_s=3)


def test_a_build_ends_with_whoever_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules(tmp_path, 'open("pid", "w").write(str(os.getpid())); time.sleep(60)', monkeypatch)
    with subprocess.Popen([sys.executable, "-c", ASK], cwd=tmp_path) as asking:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int((tmp_path / "pid").read_text())
        asking.send_signal(signal.SIGKILL)
    while Path(f"/proc/{child}/stat").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.getpid() != child

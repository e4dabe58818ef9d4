"""The command as a user types it: in this process where that is enough, in one of its own where not."""

from __future__ import annotations

import io
import json
import os
import pickle
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression

import fairlead
from fairlead import cli
from fairlead.bundle.read import open_bundle
from registry import MlflowServer

COMMAND = [sys.executable, "-m", "fairlead"]
GOOD = {"sepal_length": 7.7, "sepal_width": 3.0, "petal_length": 6.1, "petal_width": 2.3}
SECRET = "s3cr3t-98765"
VERBS = ("build", "inspect", "predict", "serve", "fetch", "register")


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Done]:
    """Give `run(*arguments, stdin=b"")`; whatever it ends in, it ends without a traceback."""
    monkeypatch.setenv("FAIRLEAD_CACHE_DIRECTORY", str(tmp_path_factory.mktemp("cache")))

    def go(*arguments: object, stdin: bytes = b"") -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["fairlead", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(int(end.value.code or 0), out, err)

    return go


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return pd.DataFrame({"size": [20.0, 40.0, 60.0, 80.0, 100.0, 120.0], "dear": [0, 0, 0, 1, 1, 1]})


@pytest.fixture(scope="module")
def model_file(sample: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pkl"
    path.write_bytes(pickle.dumps(LogisticRegression().fit(sample[["size"]], sample["dear"])))
    return path


def test_help_and_version(run: Any) -> None:
    assert run("--version").out == f"fairlead {fairlead.__version__}\n"
    for arguments in (["--help"], ["-h"], *[[verb, "--help"] for verb in VERBS]):
        done = run(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "Usage:" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["guess"],
        ["--guess"],
        ["predict"],
        ["predict", "x"],
        ["build", "model.pkl"],
        ["build", "model.pkl", "-o", "x", "--engine", "turbo"],
        ["serve", "x", "--port", "99999"],
        ["serve", "x", "--workers", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_2_and_shows_how(run: Any, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert "Usage:" in done.err
    assert done.out == ""


def test_serving_nothing_is_2_and_says_what_to_do(run: Any) -> None:
    done = run("serve")
    assert (done.code, done.out) == (2, "")
    assert done.err == "fairlead: no model to serve: name at least one bundle\n"


@pytest.mark.parametrize("verb", ["inspect", "serve", "predict", "fetch"])
def test_what_is_no_bundle_is_2(run: Any, verb: str, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        done = run(verb, path, *(["-"] if verb == "predict" else []))
        assert done.code == 2
        assert done.err.startswith(f"fairlead: {path}: not a bundle")
        assert done.err.count("\n") == 1
        assert done.out == ""


def test_a_file_that_is_no_model_is_2(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = run("predict", file, "-")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"fairlead: {file}: expected a model in one of these formats, got none of them")


def test_a_plain_model_is_built_into_the_cache(run: Any, model_file: Path) -> None:
    answer = run("predict", model_file, "-", stdin=b'{"size": 110}')
    assert json.loads(answer.out)["prediction"] == 1
    fetched = run("fetch", model_file)
    assert (fetched.code, fetched.err) == (0, "")
    assert open_bundle(Path(fetched.out.strip())).manifest.name == "model"
    told = json.loads(run("fetch", model_file, "--json").out)
    assert (told["path"], told["built"], told["stale"]) == (fetched.out.strip(), True, None)
    assert told["digest"] == json.loads(run("inspect", model_file, "--json").out)["digest"]


def test_an_address_of_no_known_kind_is_2(run: Any) -> None:
    for verb in (["fetch"], ["inspect"], ["build", "-o", "x"]):
        done = run(*verb, "gs://bucket/model")
        assert (done.code, done.out) == (2, "")
        assert "s3://BUCKET/PREFIX" in done.err


def test_models_come_from_where_they_live_and_go_there(
    run: Any, model_file: Path, mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in mlflow_server.environ.items():
        if name != "HOME":
            monkeypatch.setenv(name, value)
    source = mlflow_server.s3.put("cli/model", model_file.parent)
    built = run("build", source, "-o", tmp_path / "churn")
    assert (built.code, built.err) == (0, "")
    registered = run("register", tmp_path / "churn", "models:/cli-churn", "--alias", "champion")
    assert registered.code == 0, registered.err
    told = "cli-churn version 1: serve it with: fairlead serve models:/cli-churn@champion\n"
    assert registered.out.endswith(told)
    fetched = json.loads(run("fetch", "models:/cli-churn@champion", "--json").out)
    assert (fetched["registry_version"], fetched["built"]) == ("1", False)
    assert fetched["digest"] == open_bundle(tmp_path / "churn").digest
    missing = run("inspect", "models:/cli-churn@nobody")
    assert (missing.code, missing.out) == (2, "")
    assert "champion" in missing.err


def test_a_terminal_sees_how_far_it_is(model_file: Path, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    source = mlflow_server.s3.put("cli/shown", model_file.parent)
    environ = os.environ | mlflow_server.environ | {"FAIRLEAD_CACHE_DIRECTORY": str(tmp_path), "TERM": "xterm"}
    leader, follower = pty.openpty()
    with subprocess.Popen([*COMMAND, "fetch", source], env=environ, stdout=subprocess.PIPE, stderr=follower) as command:
        os.close(follower)
        shown = b""
        with suppress(OSError):  # as Linux ends a terminal that nobody writes to any more
            while data := os.read(leader, 65536):
                shown += data
        assert command.stdout is not None
        out = command.stdout.read()
    os.close(leader)
    assert command.returncode == 0
    assert f"fetch {source}" in shown.decode()
    assert "bytes" in shown.decode()
    assert "build: compile" in shown.decode()
    assert "\x1b[?25h" in shown.decode(), "the cursor is not given back"
    assert Path(out.decode().strip()).is_dir()


def test_inspect(run: Any, iris_bundle: Path) -> None:
    done = run("inspect", iris_bundle)
    assert (done.code, done.err) == (0, "")
    assert "petal_width" in done.out
    told = json.loads(run("inspect", iris_bundle, "--json").out)
    assert told["digest"] == open_bundle(iris_bundle).digest
    assert [feature["name"] for feature in told["schema"]["features"]] == list(GOOD)


def test_predict_from_a_file_or_standard_input(run: Any, iris_bundle: Path, tmp_path: Path) -> None:
    expected = fairlead.load(iris_bundle).predict(GOOD)
    row = tmp_path / "row.json"
    row.write_text(json.dumps(GOOD))
    for done in (run("predict", iris_bundle, row), run("predict", iris_bundle, "-", stdin=row.read_bytes())):
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out) == expected
    row.write_text(json.dumps([GOOD, GOOD]))
    both = fairlead.load(iris_bundle).predict([GOOD, GOOD])
    assert json.loads(run("predict", iris_bundle, row).out) == both
    assert json.loads(run("predict", iris_bundle, "-", stdin=b"[]").out) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"x", b'{"a": NaN}', b'{"a": 1e400}', b"\xff", b'{"a": "\xff"}', b"{} {}", b"[" * 100_000],
    ids=lambda data: repr(data[:15]),
)
def test_predict_of_what_is_not_json_is_2(run: Any, iris_bundle: Path, data: bytes) -> None:
    done = run("predict", iris_bundle, "-", stdin=data)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("fairlead: -: expected ")
    assert done.err.count("\n") == 1


def test_predict_of_an_unreadable_file_is_2(run: Any, iris_bundle: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        done = run("predict", iris_bundle, path)
        assert done.code == 2
        assert done.err.startswith(f"fairlead: {path}: cannot be read: ")


def test_predict_tells_every_problem_and_no_value(run: Any, iris_bundle: Path) -> None:
    bad = {**GOOD, "sepal_length": SECRET, "sepal_width": None}
    alone = run("predict", iris_bundle, "-", stdin=json.dumps(bad).encode())
    assert (alone.code, alone.out) == (2, "")
    assert [line.split(" at ")[1] for line in alone.err.splitlines()] == ["$.sepal_length", "$.sepal_width"]
    many = run("predict", iris_bundle, "-", stdin=json.dumps([GOOD, bad, 3, SECRET]).encode())
    assert (many.code, many.out) == (2, "")
    assert [line.split(" at ")[1] for line in many.err.splitlines()] == [
        "$[1].sepal_length",
        "$[1].sepal_width",
        "$[2]",
        "$[3]",
    ]
    assert SECRET not in alone.err + many.err
    for text in (b"3", b"null", b'"x"'):
        assert run("predict", iris_bundle, "-", stdin=text).err.startswith("fairlead: record: expected an object")


def test_build_with_what_it_can_be_told(run: Any, model_file: Path, sample: pd.DataFrame, tmp_path: Path) -> None:
    data, schema = tmp_path / "sample.csv", tmp_path / "schema.yaml"
    sample.to_csv(data, index=False)
    schema.write_text(
        yaml.safe_dump({"extra": "forbid", "features": [{"name": "size", "type": "float", "unit": "m2"}]})
    )
    code = tmp_path / "classes_of_mine.py"
    code.write_text("class Unused: pass\n")
    out = tmp_path / "home"
    flags = {
        "--data": data,
        "--target": "dear",
        "--schema": schema,
        "--code": code,
        "--name": "homes",
        "--model-version": "7",
        "--trust": "some.module",
        "--engine": "onnx",
    }
    outputs = ["--output", "p=probability:1", "--output", "dear=probability:1 >= 0.5"]
    done = run("build", model_file, "-o", out, *[part for flag in flags.items() for part in flag], *outputs)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"{out}: homes 7, 1 features"
    manifest = open_bundle(out).manifest
    assert (manifest.name, manifest.version, manifest.engine) == ("homes", "7", "onnx")
    assert manifest.schema.extra == "forbid"
    assert manifest.schema.features[0].unit == "m2"
    assert [output.name for output in manifest.outputs] == ["p", "dear"]
    assert manifest.trust == ("some.module",)
    answer = json.loads(run("predict", out, "-", stdin=b'{"size": 110}').out)
    assert answer["dear"] is True
    assert run("predict", out, "-", stdin=b'{"size": 110, "x": 1}').code == 2


def test_build_of_a_pair_and_over_an_older_bundle(run: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"town": "Delft", "size": 1.0}, {"town": "Gouda", "size": 2.0}]
    vectorizer = DictVectorizer().fit(rows)
    model = LinearRegression().fit(vectorizer.transform(rows), [1.0, 2.0])
    (tmp_path / "dv.pkl").write_bytes(pickle.dumps(vectorizer))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    build = ["build", tmp_path / "model.pkl", "--vectorizer", tmp_path / "dv.pkl", "-o", tmp_path / "price"]
    assert run(*build).code == 0
    assert run(*build, "--engine", "native").code == 0
    assert open_bundle(tmp_path / "price").manifest.engine == "native"
    asked = run("predict", tmp_path / "price", "-", stdin=json.dumps(rows[1]).encode())
    assert json.loads(asked.out)["prediction"] == pytest.approx(2.0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dv.pkl", "model.pkl", "price"]


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_build_of_a_malicious_pickle_runs_nothing_and_writes_nothing(run: Any, tmp_path: Path) -> None:
    marker, source = tmp_path / "marker", tmp_path / "model.pkl"
    source.write_bytes(pickle.dumps(Malicious(marker)))
    done = run("build", source, "-o", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert "posix.system" in done.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pkl"]


def test_build_of_what_cannot_be_built_is_2_and_writes_nothing(run: Any, model_file: Path, tmp_path: Path) -> None:
    unfitted, text = tmp_path / "unfitted.pkl", tmp_path / "notes.txt"
    unfitted.write_bytes(pickle.dumps(LogisticRegression()))
    text.write_text("not a model")
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "out"
    calls: list[tuple[list[object], str]] = [
        ([tmp_path / "missing.pkl"], "missing.pkl"),
        ([text], "notes.txt"),
        ([unfitted], "fit"),
        ([model_file, "--output", "p=probability:maybe"], "no class maybe"),
        ([model_file, "--output", "p"], "expected name=prediction"),
        ([model_file, "--schema", tmp_path / "missing.yaml"], "no such file"),
        ([model_file, "--data", tmp_path / "missing.csv"], "no such file"),
        ([model_file, "--name", "a name"], "expected a model name"),
        ([model_file, "--code", tmp_path / "missing.py"], "cannot read"),
        (["no_such_module:Model"], "no_such_module"),
    ]
    for arguments, message in calls:
        done = run("build", *arguments, "-o", out)
        assert (done.code, done.out) == (2, ""), arguments
        assert done.err.startswith("fairlead: "), arguments
        assert message in done.err, arguments
    assert sorted(tmp_path.iterdir()) == before


def test_build_leaves_alone_what_is_no_bundle(run: Any, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    thesis = tmp_path / "thesis" / "chapter.tex"
    thesis.write_text("years of work")
    done = run("build", model_file, "-o", tmp_path / "thesis")
    assert done.code == 2
    assert "not empty and no intact bundle" in done.err
    assert run("build", model_file, "-o", thesis).code == 2
    assert run("build", model_file, "-o", tmp_path / "no" / "parent").code == 2
    assert thesis.read_text() == "years of work"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_of_ours_is_1_and_says_how_to_see_more(
    run: Any, iris_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, debug: bool
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("fairlead.report.as_text", fail)
    monkeypatch.setenv("FAIRLEAD_DEBUG", "1" if debug else "")
    monkeypatch.setattr(sys, "argv", ["fairlead", "inspect", str(iris_bundle)])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    err = capsys.readouterr().err
    assert "a fault of ours, ZeroDivisionError: by nothing" in err
    assert "FAIRLEAD_DEBUG=1" in err
    assert ("Traceback" in err) == debug


def test_ctrl_c_is_130_and_one_line(run: Any, iris_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fairlead.report.as_text", interrupt)
    done = run("inspect", iris_bundle)
    assert (done.code, done.out, done.err.strip()) == (130, "", "fairlead: interrupted")


def test_ctrl_c_of_a_process_that_waits_for_its_input(iris_bundle: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "predict", iris_bundle, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    # Asleep in a read of its input, and not at work before it.
    while "pipe_read" not in wait_channel(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "fairlead: interrupted")


def wait_channel(pid: int) -> str:
    # The name of the kernel function may be hidden; the number of the system call, 0 for read on x86-64, is not.
    call = Path(f"/proc/{pid}/syscall").read_text().split()
    return "pipe_read" if call[:2] == [{"x86_64": "0", "aarch64": "63"}[os.uname().machine], "0x0"] else ""


def test_a_reader_that_went_away_is_no_fault(iris_bundle: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "inspect", iris_bundle, "--json"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_module_is_the_command(iris_bundle: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "predict", iris_bundle, "-"], input=json.dumps(GOOD), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == fairlead.load(iris_bundle).predict(GOOD)
    done = subprocess.run([*COMMAND, "inspect", "missing"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1

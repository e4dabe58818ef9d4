"""The examples and the demo run as a user runs them, and their answers are the original model's."""

from __future__ import annotations

import json
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from registry import clean_environ, need

EXAMPLES = Path(__file__).parent.parent / "examples"
CUSTOMER = {
    "gender": "female",
    "seniorcitizen": 0,
    "partner": "no",
    "dependents": "no",
    "tenure": 41,
    "phoneservice": "yes",
    "multiplelines": "no",
    "internetservice": "dsl",
    "onlinesecurity": "yes",
    "onlinebackup": "no",
    "deviceprotection": "yes",
    "techsupport": "yes",
    "streamingtv": "yes",
    "streamingmovies": "yes",
    "contract": "one_year",
    "paperlessbilling": "yes",
    "paymentmethod": "bank_transfer_(automatic)",
    "monthlycharges": 79.85,
    "totalcharges": 3320.75,
}


def run_example(name: str, out: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run an example; its answer is the JSON object at the end of what it prints."""
    command = [sys.executable, EXAMPLES / name / "run.py", "--out", out, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout[done.stdout.rindex("\n{\n") if "\n{\n" in done.stdout else 0 :])
    return answer


def original_churn(out: Path) -> float:
    vectorizer, model = pickle.loads((out / "churn-model.bin").read_bytes())
    return float(model.predict_proba(vectorizer.transform([CUSTOMER]))[0, 1])


def test_every_example_is_tested_here() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/run.py")} == {
        "bikeshare",
        "churn",
        "iris",
        "registry",
        "rides",
        "titanic",
    }


def test_iris(tmp_path: Path) -> None:
    answer = run_example("iris", tmp_path)
    assert answer["prediction"] == 2
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_churn(tmp_path: Path) -> None:
    answer = run_example("churn", tmp_path)
    assert answer == {"churn_probability": pytest.approx(original_churn(tmp_path), abs=1e-6), "churn": False}


def test_churn_with_the_published_data(tmp_path: Path, telco_csv: Path) -> None:
    answer = run_example("churn", tmp_path, "--data", telco_csv)
    assert answer == {"churn_probability": pytest.approx(original_churn(tmp_path), abs=1e-6), "churn": False}
    assert answer["churn_probability"] == pytest.approx(0.0544, abs=1e-3)


def test_rides(tmp_path: Path) -> None:
    answer = run_example("rides", tmp_path)
    model = pickle.loads((tmp_path / "rides.pkl").read_bytes())
    expected = model.predict([{"PU_DO": "130_205", "trip_distance": 3.66}])[0]
    assert answer == {"ride_duration": pytest.approx(expected, rel=1e-6)}


def test_bikeshare(tmp_path: Path) -> None:
    answer = run_example("bikeshare", tmp_path)
    assert answer["membership"] == "Casual"
    assert answer["proba"] > 0.9


def test_registry(tmp_path: Path) -> None:
    need("mlflow", "httpx")
    command = [sys.executable, EXAMPLES / "registry" / "run.py", "--canary", "--seconds", "0.5", "--out", tmp_path]
    done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = re.findall(r"answers of version (\d)\W+([\d,]+)", done.stdout)
    assert [version for version, count in answers if count != "0"] == ["1", "2", "1", "2"]
    assert re.findall(r"failures\W+(\d+)", done.stdout) == ["0", "0"]
    customers = {int(version): int(n) for version, n in re.findall(r"customers of version (\d)\W+(\d+)", done.stdout)}
    assert sum(customers.values()) == 500
    assert 75 < customers[2] < 125
    ports = re.findall(r"(?:127\.0\.0\.1:|--port )(\d+)", done.stdout)
    assert len(set(ports)) == 3
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), 5)


def run_demo(directory: Path, port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / "iris" / "demo.py", "--port", str(port)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=180)


def test_demo_runs_twice_in_a_row(tmp_path: Path, free_port: int) -> None:
    for _ in range(2):
        done = run_demo(tmp_path, free_port)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "HTTP 200" in done.stdout
        assert '"prediction": 2' in done.stdout
        assert "HTTP 422" in done.stdout
        assert "$.petal_width" in done.stdout


def test_demo_says_in_one_line_that_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_demo(tmp_path, port)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"port {port} is taken")
    assert done.stderr.count("\n") == 1


def test_demo_that_stays_is_stopped_by_ctrl_c(tmp_path: Path, free_port: int) -> None:
    command = [sys.executable, EXAMPLES / "iris" / "demo.py", "--port", str(free_port), "--stay"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as demo:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/readyz", timeout=5) as response:
                    assert response.status == 200
                break
            except OSError:
                assert demo.poll() is None, demo.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.1)
        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=30)
    assert b"Traceback" not in stderr
    assert demo.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT)


def test_rides_are_scored_as_they_happen(tmp_path: Path) -> None:
    script = EXAMPLES / "rides" / "stream.py"
    command = [sys.executable, script, "--rides", "2000", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=clean_environ())
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"ride_id": 256' in done.stdout  # the course's event through Lambda's handler
    assert "copy 1 was killed at" in done.stdout
    assert re.search(r"2,\d+ predictions under 2,000 keys for 2,000 rides", done.stdout)
    assert "not_json" in done.stdout


def test_titanic_is_explained_guarded_and_kept_current(tmp_path: Path, free_port: int) -> None:
    need("explainerdashboard")
    command = [sys.executable, EXAMPLES / "titanic" / "run.py", "--out", tmp_path, "--port", str(free_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "who is not logged in sees the login page: True" in done.stdout
    assert "rose sees Who survived?" in done.stdout
    assert "the new model is explained: after" in done.stdout
    assert "the page tells why it is not current: after" in done.stdout
    assert (tmp_path / "titanic.html").stat().st_size > 1_000_000

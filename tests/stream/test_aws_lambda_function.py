"""What a function loads, when, and what it refuses to start with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.errors import ConfigError, FairleadError
from fairlead.stream.aws_lambda.function import Function
from lambda_runtime import ENVELOPE, kinesis_event, ride
from registry import clean_environ

pytestmark = pytest.mark.xdist_group("aws_lambda")

Make = Callable[[dict[str, str]], Function]
IMPORTED = """
import json, sys
import fairlead.stream.aws_lambda
known = ("boto3", "mangum", "onnxruntime", "starlette", "fairlead.stream.scoring", "fairlead.web.app")
print(json.dumps([name for name in known if name in sys.modules]))
"""


def imported(environ: dict[str, str], code: str = IMPORTED) -> list[str]:
    """Give what is loaded by an import of the handler's module."""
    own = {name: value for name, value in clean_environ().items() if not name.startswith("FAIRLEAD_")}
    done = subprocess.run([sys.executable, "-c", code], env=own | environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_an_import_loads_nothing_but_in_lambda() -> None:
    assert imported({}) == []


def test_in_lambda_the_import_loads_what_the_settings_speak_of(rides_bundle: Path) -> None:
    there = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "MODEL_LOCATION": str(rides_bundle)}
    assert "fairlead.web.app" in imported(there)
    events = imported({**there, "TEST_RUN": "True"})
    assert "fairlead.stream.scoring" in events
    assert not {"boto3", "mangum", "fairlead.web.app"} & set(events)
    assert "fairlead.stream.scoring" in imported(there | ENVELOPE)


def test_a_test_run_makes_no_client(rides_bundle: Path) -> None:
    event = kinesis_event("poison!", ride(1))
    code = f"""
import json, os, sys
from fairlead.stream.aws_lambda.function import Function
for value in ("True", "1", "yes"):
    answer = Function({{**os.environ, "TEST_RUN": value}}).answer({event!r}, None)
    assert [one["prediction"]["ride_id"] for one in answer["predictions"]] == [1], answer
print(json.dumps([name for name in ("boto3", "botocore") if name in sys.modules]))
"""
    environ = ENVELOPE | {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": "ride_predictions"}
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": "kinesis://dead", "FAIRLEAD_STREAM_OVERFLOW": "s3://bucket/large"}
    assert imported(environ | letters, code) == []


def test_settings_may_stand_in_a_file(function: Make, rides_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "fairlead.yaml"
    file.write_text(
        f"""
models:
  duration: {{source: {rides_bundle}}}
  other: {{source: nowhere}}
stream: {{model: duration, features: ride, id: ride_id, results: answer, report_batch_item_failures: true}}
"""
    )
    answer = function({"FAIRLEAD_CONFIG": str(file)}).answer(kinesis_event(ride("a")), None)
    [one] = answer["predictions"]
    assert one["model"] == "duration"
    assert one["answer"] == {"ride_duration": pytest.approx(20.0), "ride_id": "a"}
    assert answer["batchItemFailures"] == []


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"FAIRLEAD_STREAM_TO": "kafka://one/rides"}, r"^stream.to: expected kinesis://STREAM.* got kafka://one/rides"),
        ({"FAIRLEAD_STREAM_DEAD_LETTER": "amqp://me:secret@one/%2F/dead"}, r"^stream.dead_letter: .* got amqp://one/"),
        ({"PREDICTIONS_STREAM_NAME": "ride predictions"}, "expected kinesis://STREAM, a name of letters"),
        ({"FAIRLEAD_STREAM_REPORT_BATCH_ITEM_FAILURES": "perhaps"}, "true or false"),
        ({"FAIRLEAD_STREAM_ID": "ride.ride_id"}, "where the features are"),
        ({"MODEL_LOCATION": ""}, "expected a model: set MODEL_LOCATION"),
        ({"MODEL_LOCATION": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_is_wrong_is_told_at_the_start(
    function: Make, rides_bundle: Path, environ: dict[str, str], told: str
) -> None:
    with pytest.raises(FairleadError, match=told):
        function(ENVELOPE | {"MODEL_LOCATION": str(rides_bundle)} | environ).prepare()


def test_what_needs_a_process_that_stays_is_refused(function: Make, rides_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "fairlead.yaml"
    canary = f"canary: {{source: {rides_bundle}, weight: 0.5}}, refresh_s: 10"
    file.write_text(f"models: {{rides: {{source: {rides_bundle}, {canary}}}}}\nstream: {{features: ride}}")
    with pytest.raises(ConfigError, match=r"rides: only `fairlead stream`.* has refresh_s and canary"):
        function({"FAIRLEAD_CONFIG": str(file)}).prepare()


def test_a_home_that_can_be_written_to_keeps_the_cache(rides_bundle: Path, tmp_path: Path) -> None:
    code = """
import json, os
from fairlead.stream.aws_lambda import handler
handler({"Records": []}, None)
print(json.dumps(os.environ.get("XDG_CACHE_HOME")))
"""
    own = {"MODEL_LOCATION": str(rides_bundle)}
    assert imported(own | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}, code) == ""
    assert imported(own | {"HOME": str(tmp_path / "none"), "TMPDIR": str(tmp_path)}, code) == str(tmp_path)

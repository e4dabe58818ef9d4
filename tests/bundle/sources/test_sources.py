from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.bundle.sources import LocalSource, default_source, parse
from fairlead.errors import SourceError

DIGEST = "0" * 63 + "a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models:/churn@champion", None),
        ("models:/churn/3", None),
        ("models:/churn/003", "models:/churn/3"),
        ("models:/churn/production", "models:/churn/Production"),
        ("models:/churn/none", "models:/churn/None"),
        ("models:/churn/Latest", "models:/churn/latest"),
        ("models:/a b@x@y", None),
        ("MODELS:/churn/1", "models:/churn/1"),
        ("runs:/0a1b/model", None),
        ("runs:/0a1b/deep/model.pkl/", "runs:/0a1b/deep/model.pkl"),
        ("experiments:/a/b c", None),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket/"),
        ("mlflow-artifacts:/1/run/artifacts/model", None),
        ("mlflow-artifacts://host:5000/1/run", None),
        (f"https://example.org/m/churn.tar.gz#sha256={DIGEST.upper()}", None),
        ("churn", "churn"),
        ("./models:/x", "models:/x"),
        ("model.py:Churn", "model.py:Churn"),
        ("file:///models/my%20churn", "/models/my churn"),
    ],
)
def test_a_source_is_told_as_it_was_written(text: str, told: str | None) -> None:
    expected = told or text
    assert parse(text).text == (expected.replace(DIGEST.upper(), DIGEST))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/churn", r"models:/NAME@ALIAS, models:/NAME/VERSION .* models:/NAME/STAGE \(Production, Staging"),
        ("models:/", "expected models:/NAME@ALIAS"),
        ("models:/churn@", "expected models:/NAME@ALIAS"),
        ("models:/@champion", "expected models:/NAME@ALIAS"),
        ("models:/churn/Prod", "expected models:/NAME@ALIAS"),
        ("models:/churn/1/model.pkl", "expected models:/NAME@ALIAS"),
        ("models:/churn@champion/x", "expected models:/NAME@ALIAS"),
        ("models://registry/churn/1", "expected models:/NAME@ALIAS"),
        ("models:/churn/²", "expected models:/NAME@ALIAS"),
        ("runs:/0a1b", "expected runs:/ID/PATH"),
        ("runs:/0a1b/../model", "expected runs:/ID/PATH"),
        ("runs:/0a1b/a//b", "expected runs:/ID/PATH"),
        ("experiments:/ ", "expected experiments:/NAME"),
        ("s3:///key", "expected s3://BUCKET/PREFIX"),
        ("s3://key:secret@bucket/x", "expected s3://BUCKET/PREFIX"),
        ("mlflow-artifacts:/", "expected mlflow-artifacts:/PATH"),
        ("https://example.org/churn.onnx", "sha256sum FILE"),
        ("https://example.org/churn.onnx#md5=00", "got #md5=00"),
        ("https://example.org/churn.onnx#sha256=00", "sha256=HEX"),
        (f"https://example.org/#sha256={DIGEST}", "the address of a file"),
        (f"https:///churn.onnx#sha256={DIGEST}", "the address of a file"),
        ("gs://bucket/x", "gs:/…: expected a path, or models:/NAME@ALIAS, runs:/ID/PATH"),
        ("file://elsewhere/churn", "a path of this machine"),
        ("", "expected where a model is, got nothing"),
    ],
)
def test_a_wrong_form_is_told_with_the_right_one(text: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected):
        parse(text)


def test_no_secret_of_an_address_is_told() -> None:
    source = parse(f"https://example.org/churn.onnx?X-Amz-Signature=hidden#sha256={DIGEST}")
    assert "hidden" not in source.text + repr(source)
    for text in (
        f"https://someone:hidden@example.org/churn.onnx#sha256={DIGEST}",
        "https://someone:hidden@example.org/churn.onnx?token=hidden",
        "mlflow-artifacts://someone:hidden@example.org/1",
    ):
        with pytest.raises(SourceError) as caught:
            parse(text)
        assert "hidden" not in str(caught.value)


def test_a_path_is_kept_as_it_is() -> None:
    source = parse("../churn")
    assert isinstance(source, LocalSource)
    assert source.path == Path("../churn")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RUN_ID": " "}, None),
        ({"MLFLOW_EXP_NAME": "churn"}, "experiments:/churn"),
        ({"MLFLOW_EXP_NAME": "churn", "RUN_ID": "0a1b"}, "runs:/0a1b/model"),
        ({"MLFLOW_EXP_NAME": "churn", "MLFLOW_REGISTERED_MODEL": "churn"}, "models:/churn/Production"),
        ({"MODEL_LOCATION": "s3://b/x", "MLFLOW_REGISTERED_MODEL": "churn", "RUN_ID": "0a1b"}, "s3://b/x"),
    ],
)
def test_what_the_environment_names(environ: dict[str, str], expected: str | None) -> None:
    assert default_source(environ) == expected


def test_reading_sources_imports_no_library() -> None:
    code = (
        "import sys; from fairlead.bundle.sources import parse; parse('models:/a@b'); parse('s3://b/x'); "
        "sys.exit(' '.join({'httpx', 'boto3', 'botocore', 'mlflow', 'requests'} & sys.modules.keys()) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")

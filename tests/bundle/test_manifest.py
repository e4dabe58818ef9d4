from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from fairlead.bundle.manifest import Manifest, Origin, Parity, decode_descriptor, encode_descriptor
from fairlead.errors import BundleError
from fairlead.schema import Feature, Output, Schema

MANIFEST = Manifest(
    name="churn",
    version="1",
    kind="classifier",
    schema=Schema(
        features=(
            Feature(name="city", type="string", categories=("Tromsø", "no", "1", "null", "é\n: #")),
            Feature(name="age", type="float", nullable=True, default=None, minimum=-1e-300, maximum=1e300),
            Feature(name="on", type="bool", default=False),
        )
    ),
    outputs=(Output(name="p", source="probability", label="1"),),
    engine="onnx",
    input_form="frame",
    origin=Origin(source="m.pkl", format="pickle", model="sklearn.X", sha256="0" * 64, versions={"numpy": "1.10"}),
    files={"model.onnx": "1" * 64},
    fairlead_version="0.1.0",
    classes=("no", "yes"),
    has_probabilities=True,
    parity=Parity(rows=3, largest_difference=2.3e-7, tolerance=1e-6),
)


@pytest.mark.parametrize(
    "manifest",
    [
        MANIFEST,
        replace(MANIFEST, classes=(0, 1)),
        replace(MANIFEST, classes=(False, True)),
        replace(MANIFEST, classes=(0.5, 1.5)),
        replace(MANIFEST, classes=("1", "true", "null", "~", "1e3", "", " ")),
        replace(MANIFEST, kind="regressor", classes=None, engine="native", engine_reason="because: x", parity=None),
        replace(MANIFEST, version="1e5", name="0x10", prepared=MANIFEST.schema, code="features.py", trust=("a.b",)),
    ],
)
def test_there_and_back(manifest: Manifest) -> None:
    found = decode_descriptor(encode_descriptor(manifest, {"flavors": {}}), "MLmodel")

    assert found == manifest
    assert [type(one) for one in found.classes or ()] == [type(one) for one in manifest.classes or ()]


def test_mlflow_reads_it_as_yaml() -> None:
    data = encode_descriptor(MANIFEST, {"flavors": {"python_function": {"env": "x"}}, "signature": {"inputs": "[]"}})

    found = yaml.safe_load(data)
    assert list(found["flavors"]) == ["python_function", "fairlead"]
    assert found["signature"] == {"inputs": "[]"}
    assert found["flavors"]["fairlead"]["name"] == "churn"


def signed(body: bytes) -> bytes:
    return body + b"# sha256: " + hashlib.sha256(body).hexdigest().encode() + b"\n"


def test_every_changed_byte_shows() -> None:
    data = encode_descriptor(MANIFEST, {})
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(BundleError, match="here/MLmodel"):
            decode_descriptor(bytes(changed), "here/MLmodel")


def test_another_format_version() -> None:
    body: dict[str, Any] = yaml.safe_load(encode_descriptor(MANIFEST, {}))
    body["flavors"]["fairlead"] |= {"format_version": 2, "fairlead_version": "9.0"}

    with pytest.raises(BundleError, match=r"expected bundle format 1, got 2: use the fairlead that built it \(9.0\)"):
        decode_descriptor(signed(json.dumps(body).encode()), "MLmodel")


def test_mlflows_own_descriptor_is_none() -> None:
    with pytest.raises(BundleError, match=r"not a fairlead bundle \(no digest line\)"):
        decode_descriptor(b"flavors:\n  sklearn: {}\n", "MLmodel")


def test_the_models_own_schema() -> None:
    prepared = Schema(features=(Feature(name="x", type="float"),))

    assert MANIFEST.model_schema is MANIFEST.schema
    assert replace(MANIFEST, prepared=prepared).model_schema is prepared

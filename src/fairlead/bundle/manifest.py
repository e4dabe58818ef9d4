"""`MLmodel`: the one descriptor of a bundle, which is also MLflow's.

The file is JSON, which MLflow reads as the YAML that it also is, and a server without PyYAML. Its
`fairlead` flavor holds everything of ours and the digest of every other file. Its last line is a comment
with the digest of all that stands before it, so that a change to any byte of the bundle shows.

Layer L1; serving imports it, so it needs only msgspec.

Source: MLflow "MLmodel" format, https://mlflow.org/docs/latest/ml/model/#storage-format
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from fairlead.errors import BundleError
from fairlead.schema import Kind, Output, Scalar, Schema

DESCRIPTOR = "MLmodel"
FORMAT_VERSION = 1
_DIGEST_LINE = b"# sha256: "

EngineName = Literal["onnx", "native"]
InputForm = Literal["records", "frame", "matrix", "arguments"]


class Parity(Struct, frozen=True, kw_only=True):
    """How far the compiled model was found from the original.

    Parameters
    ----------
    rows : rows compared: the sample's own and those built around thresholds, nulls and extremes.
    largest_difference : of any number, absolute or relative to the largest of its row, the looser.
    tolerance : what was allowed of it.
    """

    rows: int
    largest_difference: float
    tolerance: float


class Origin(Struct, frozen=True, kw_only=True):
    """Where the model came from.

    Parameters
    ----------
    source : the file or directory name that `build` was given, without its folders.
    format : the module of `bundle.formats` that read it.
    model : the class of the model, such as ``sklearn.pipeline.Pipeline``.
    sha256 : of the source's bytes; of a directory's files in order of their names.
    versions : library versions that the model was made with, as far as it tells.
    """

    source: str
    format: str
    model: str
    sha256: str
    versions: dict[str, str] = field(default_factory=dict)


class Manifest(Struct, frozen=True, kw_only=True):
    """Everything a bundle says about itself.

    Parameters
    ----------
    name, version : of the model; the version is the beginning of the origin's digest unless given.
    kind : what the model does; a ``function`` is a Python class with `predict`.
    classes : labels in the order of the probabilities; None unless a classifier.
    has_probabilities : whether the classifier gives them (LinearSVC does not).
    engine : what computes predictions; `engine_reason` tells why it is ``native``.
    trees_reason : why an ``onnx`` bundle of a tree ensemble has no `trees.bin`, which is faster.
    input_form : what the native engine hands the original: one dict a row, a pandas frame, a float64
        matrix, or keyword arguments row by row.
    files : SHA-256 of every other file of the bundle, by path with forward slashes.
    shortcut : the library versions with which a native engine's shorter way was proved to give the
        original's answers to the bit; None where it was not.
    code : the user's module in ``code/`` that defines `prepare` or `prepare_frame`.
    prepared : the features after `code` has run; None when it does not change them.
    model_class : ``module:Class`` in ``code/`` for a bundle of the user's own class.
    trust : globals beyond the allow-list that the user accepted when the bundle was built.
    fairlead_version : what built it.
    """

    format_version: int = FORMAT_VERSION
    name: str
    version: str
    kind: Kind
    schema: Schema
    outputs: tuple[Output, ...]
    engine: EngineName
    input_form: InputForm
    origin: Origin
    files: dict[str, str]
    fairlead_version: str
    classes: tuple[Scalar, ...] | None = None
    has_probabilities: bool = False
    engine_reason: str | None = None
    trees_reason: str | None = None
    parity: Parity | None = None
    shortcut: dict[str, str] | None = None
    code: str | None = None
    prepared: Schema | None = None
    model_class: str | None = None
    trust: tuple[str, ...] = ()

    @property
    def model_schema(self) -> Schema:
        """The features that the engine itself takes: those of `schema` unless `code` makes others."""
        return self.prepared or self.schema


def encode_descriptor(manifest: Manifest, mlflow: dict[str, Any]) -> bytes:
    """Write a manifest as the bytes of `MLmodel`.

    Parameters
    ----------
    mlflow : the keys of MLflow's own part: `flavors`, `signature` and such. The `fairlead` flavor is added.
    """
    flavors = {**mlflow.get("flavors", {}), "fairlead": msgspec.to_builtins(manifest)}
    body = msgspec.json.format(msgspec.json.encode({**mlflow, "flavors": flavors}), indent=1) + b"\n"
    return body + _DIGEST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n"


def decode_descriptor(data: bytes, where: str) -> Manifest:
    """Read a manifest from the bytes of `MLmodel`, refusing any that changed.

    Parameters
    ----------
    where : what to call the file in an error.

    Raises
    ------
    BundleError
        When its own digest does not fit, it holds no fairlead flavor, or a newer fairlead wrote it.
    """
    body, mark, digest = data.rpartition(_DIGEST_LINE)
    if not mark:
        raise BundleError(
            f"{where}: not a fairlead bundle (no digest line): make one with `fairlead build {where} -o DIR`"
        )
    if digest != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise BundleError(f"{where}: changed since the bundle was built: build it again")
    try:
        flavor = msgspec.json.decode(body)["flavors"]["fairlead"]
        written = flavor.get("format_version")
        if written != FORMAT_VERSION:
            raise BundleError(
                f"{where}: expected bundle format {FORMAT_VERSION}, got {written}: "
                f"use the fairlead that built it ({flavor.get('fairlead_version')}) or build it again"
            )
        return msgspec.convert(flavor, Manifest)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{where}: expected the manifest of a bundle, got {error}: build it again") from error

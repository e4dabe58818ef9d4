"""ONNX files: taken as they are, when the checker passes them and they hold all their weights.

Source: ONNX IR specification, "External tensor data".
"""

from __future__ import annotations

from pathlib import Path

from fairlead.bundle.formats import LoadedModel, LoadRequest
from fairlead.bundle.model_file import read_file
from fairlead.errors import SourceError
from fairlead.extras import require

SOURCES = ".onnx"


def accepts(source: str) -> bool:
    """Whether the file's name ends in .onnx."""
    path = Path(source)
    return path.suffix.lower() == SOURCES and path.is_file()


def load(request: LoadRequest) -> LoadedModel:
    """Check the graph; the model is its bytes.

    Raises
    ------
    SourceError
        When it is no valid ONNX model, or keeps its weights in other files.
    """
    path = Path(request.source)
    data = read_file(path)
    check_onnx(data, path.name)
    return LoadedModel(data, "onnx", {path.name: data}, producer(data))


def reopen(request: LoadRequest) -> LoadedModel:
    """Take verified bytes as they are: serving has onnxruntime, not onnx."""
    path = Path(request.source)
    data = read_file(path)
    return LoadedModel(data, "onnx", {path.name: data})


def check_onnx(data: bytes, what: str) -> None:
    """Refuse bytes that are no complete and valid ONNX model."""
    onnx = require("onnx", "build")
    helper = require("onnx.external_data_helper", "build")
    try:
        model = onnx.load_model_from_string(data)
        outside = [tensor.name for tensor in helper._get_all_tensors(model) if helper.uses_external_data(tensor)]
        if not outside:
            onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors share no base
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SourceError(f"{what}: expected an ONNX model, got one that is broken or none ({reason})") from error
    if outside:
        raise SourceError(
            f"{what}: its weights are in other files ({outside[0]}): save it as one file with "
            "onnx.save_model(model, path, save_as_external_data=False)"
        )


def producer(data: bytes) -> dict[str, str]:
    """The library that wrote the graph, and its version."""
    model = require("onnx", "build").load_model_from_string(data)
    if model.producer_name and model.producer_version:
        return {model.producer_name: model.producer_version}
    return {}

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairlead.bundle.formats import LoadRequest, load, reload
from fairlead.errors import SourceError


def graph(weights: int = 3) -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones((1, weights), dtype=np.float32), "w")
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weights])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, weights])
    made = helper.make_graph([node], "g", [x], [y], [tensor])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(
        made, opset_imports=opsets, ir_version=8, producer_name="skl2onnx", producer_version="1.19"
    )


def test_a_graph_is_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph().SerializeToString())
    loaded = load(LoadRequest(str(path)))
    assert loaded.model == path.read_bytes()
    assert loaded.files == {"model.onnx": path.read_bytes()}
    assert loaded.versions == {"skl2onnx": "1.19"}
    session = onnxruntime.InferenceSession(loaded.model)
    assert session.run(None, {"x": np.full((1, 3), 2, dtype=np.float32)})[0].tolist() == [[2, 2, 2]]
    assert reload("onnx", tmp_path).model == loaded.model


def test_opening_it_again_does_not_import_onnx(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph().SerializeToString())
    script = (
        "import sys; from pathlib import Path; from fairlead.bundle.formats import reload\n"
        f"assert reload('onnx', Path({str(tmp_path)!r})).model\n"
        "assert not {'onnx', 'sklearn', 'pandas', 'xgboost', 'lightgbm', 'skops'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(graph(2000), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(SourceError, match=r"weights are in other files \(w\): .*save_as_external_data=False"):
        load(LoadRequest(str(path)))


def test_a_graph_that_the_checker_refuses(tmp_path: Path) -> None:
    model = graph()
    model.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="NoSuchOperator"):
        load(LoadRequest(str(path)))

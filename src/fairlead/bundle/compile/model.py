"""The compiler's front door: a model and its schema in, an ONNX graph out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import spox

from fairlead.bundle.compile import steps
from fairlead.bundle.compile.columns import Compilation, Prediction, Value
from fairlead.bundle.compile.folding import folded
from fairlead.errors import NotCompilable
from fairlead.predict.forest import Forest
from fairlead.schema import Kind, Scalar, Schema


@dataclass(frozen=True)
class CompiledModel:
    """A model as a graph.

    Parameters
    ----------
    graph : the ONNX file's bytes.
    kind : classifier or regressor.
    classes : a classifier's labels, in the order of the probabilities.
    has_probabilities : whether the graph gives them.
    thresholds : where the model changes its mind, by place of the feature in the schema.
    forest : the same model for the trees engine; None when it has no such form;
        `forest_reason` says why, of a model that ends in trees.
    """

    graph: bytes
    kind: Kind
    classes: tuple[Scalar, ...] | None
    has_probabilities: bool
    thresholds: dict[int, list[float]]
    forest: Forest | None = None
    forest_reason: str | None = None


def compile_model(model: Any, schema: Schema) -> CompiledModel:
    """Compile `model` to one graph over the features of `schema`.

    Parameters
    ----------
    model : a fitted estimator, Pipeline or booster.
    schema : the features that reach the model; string features with the categories it knows.

    Raises
    ------
    NotCompilable
        Naming the step that has no compiled form.
    """
    for feature in schema.features:
        if feature.type == "datetime":
            raise NotCompilable(feature.name, "a datetime has no place in a compiled model")
    tensor = spox.argument(spox.Tensor(np.float64, ("N", len(schema.features))))
    inputs = tuple(
        Value(tensor, i, categories=feature.categories or () if feature.type == "string" else None, feature=i)
        for i, feature in enumerate(schema.features)
    )
    compilation = Compilation(schema, inputs, tuple(feature.source for feature in schema.features))
    prediction = steps.predict(model, inputs, compilation)
    proto = spox.build({"X": tensor}, _outputs(prediction))
    forest, forest_reason = _forest(prediction, compilation)
    return CompiledModel(
        graph=proto.SerializeToString(),
        kind="regressor" if prediction.classes is None else "classifier",
        classes=prediction.classes,
        has_probabilities=prediction.probabilities is not None,
        thresholds=compilation.thresholds,
        forest=forest,
        forest_reason=forest_reason,
    )


def _forest(prediction: Prediction, compilation: Compilation) -> tuple[Forest | None, str | None]:
    if compilation.trees is None or compilation.trees[2] is not prediction:
        return None, None
    added, finish, _ = compilation.trees
    try:
        return folded(added, finish, compilation.inputs), None
    except NotCompilable as error:
        return None, str(error)
    except Exception as error:  # a bug here must not stop a model that the graph can serve
        return None, f"folding failed: {type(error).__name__}: {error}"


def _outputs(prediction: Prediction) -> dict[str, spox.Var]:
    found = {"value": prediction.value, "label": prediction.label, "probabilities": prediction.probabilities}
    return {name: var for name, var in found.items() if var is not None}

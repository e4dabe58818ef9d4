"""The declared outputs as columns, for forms that have a type for each: CSV, Arrow, tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from fairlead.bundle.manifest import Manifest
from fairlead.predict.outputs import label_text

ColumnType = Literal["bool", "int", "float", "string", "probabilities", "json"]
_LABELS: dict[type, ColumnType] = {bool: "bool", int: "int", float: "float", str: "string"}


class Column(NamedTuple):
    """One declared output.

    Parameters
    ----------
    name : of the output.
    type : of its values; ``json`` is a user's own function, which may give anything.
    labels : of the classes, where the values are probabilities by label.
    """

    name: str
    type: ColumnType
    labels: tuple[str, ...] = ()

    def values(self, predictions: Sequence[dict[str, Any]]) -> list[Any]:
        """Give a value of `type` for each prediction; probabilities as they are, by label."""
        name = self.name
        if self.type == "json":
            return [msgspec.json.encode(prediction[name]).decode() for prediction in predictions]
        if self.type == "string":
            return [label_text(prediction[name]) for prediction in predictions]
        return [prediction[name] for prediction in predictions]


def columns_of(manifest: Manifest) -> tuple[Column, ...]:
    """Give the columns of a bundle's answers."""
    labels = manifest.classes or ()
    texts = tuple(label_text(label) for label in labels)
    columns = []
    for output in manifest.outputs:
        if output.comparison is not None:
            columns.append(Column(output.name, "bool"))
        elif output.source == "probabilities":
            columns.append(Column(output.name, "probabilities", texts))
        elif output.source == "probability" or (manifest.kind == "regressor" and not labels):
            columns.append(Column(output.name, "float"))
        elif not labels:
            columns.append(Column(output.name, "json"))
        else:
            types = {_LABELS[type(label)] for label in labels}
            columns.append(Column(output.name, types.pop() if len(types) == 1 else "string"))
    return tuple(columns)

"""Reference rows: the sample that a bundle is proved on, and keeps for drift and explanations.

Layer L1, build time only.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlead.bundle import samples
from fairlead.bundle.probes import synthetic_rows
from fairlead.errors import SchemaError
from fairlead.extras import require
from fairlead.predict.prepare import Preparation
from fairlead.predict.validate import Row, Validator
from fairlead.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "reference.parquet"
_MOST_ROWS = 10_000
_SEED = 20


@dataclass(frozen=True)
class Reference:
    """Reference rows: as requests hold them, and as they reach the model."""

    records: list[dict[str, Any]]
    rows: list[Row]


def reference_of(
    schema: Schema,
    frame: pd.DataFrame | None,
    preparation: Preparation | None,
    thresholds: dict[int, list[float]],
) -> Reference:
    """Take reference rows from a sample, or make them up.

    Parameters
    ----------
    schema : of a request.
    frame : the sample; None makes rows up around `thresholds`, by place of the feature.
    preparation : the user's step before the model.

    Raises
    ------
    SchemaError
        When the sample does not fit the schema, or cannot be prepared.
    """
    if frame is None:
        rows = synthetic_rows(schema, thresholds)
        records = [dict(zip(schema.names, row, strict=True)) for row in rows]
    else:
        renamed = frame.rename(columns={feature.source: feature.name for feature in schema.features})
        records = samples.records_of(renamed[[name for name in schema.names if name in renamed.columns]])
    checked = Validator(schema).check(records)
    if checked.rejections:
        place, problems = next(iter(checked.rejections.items()))
        raise SchemaError(f"the sample's row {place + 1} does not fit the schema: {problems[0]}")
    if preparation is None:
        return Reference(records, checked.rows)
    after = preparation.run(checked.rows)
    if after.rejections and frame is not None:
        place, problems = next(iter(after.rejections.items()))
        raise SchemaError(f"the sample's row {place + 1} cannot be prepared: {problems[0]}")
    if not after.rows:
        problem = next(iter(after.rejections.values()))[0]
        raise SchemaError(f"no made-up row can be prepared, give real ones with --data: {problem}")
    return Reference([records[place] for place in after.places], after.rows)


def parquet_of(records: list[dict[str, Any]]) -> bytes:
    """Write records as Parquet, a seeded choice of them when there are very many."""
    pyarrow, parquet = require("pyarrow", "build"), require("pyarrow.parquet", "build")
    if len(records) > _MOST_ROWS:
        chosen = np.random.default_rng(_SEED).choice(len(records), _MOST_ROWS, replace=False)
        records = [records[place] for place in sorted(chosen)]
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(records), sink)
    return sink.getvalue()

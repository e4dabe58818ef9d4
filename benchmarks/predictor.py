"""One row through `Predictor.run`, and rows through the tree engine, against the bare ONNX session and scikit-learn.

python benchmarks/predictor.py [--data telco-churn.csv] [--repeats 5]

Every call takes other customers than the one before: with the same row again and again, the processor learns the
way down each tree by heart, and an engine seems three times as fast as it is.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import Figure, build, median, options, train, write

import fairlead
from fairlead.bundle.read import MODEL
from fairlead.bundle.samples import records_of
from fairlead.predict.engines import OnnxEngine
from fairlead.predict.trees import TreesEngine
from fairlead.predict.validate import Validator

ROWS = 6_000
BATCHES = (1, 16, 64, 1024)
CALLS = {"predictor": 3_000, "scikit-learn": 60}


def seconds(call: Callable[[Any], object], arguments: Sequence[Any], calls: int) -> float:
    """Give the median of `calls` single calls, one after the other with other arguments."""
    found = []
    for argument, _ in zip(cycle(arguments), range(calls), strict=False):
        start = time.perf_counter()
        call(argument)
        found.append(time.perf_counter() - start)
    return median(found)


def main() -> None:
    chosen = options(__doc__, repeats=5)
    with tempfile.TemporaryDirectory() as directory:
        forest = train(chosen.data, Path(directory))
        bundle = Path(directory) / "telco"
        build(forest, bundle)
        predictor = fairlead.load(bundle)
        graph = OnnxEngine((bundle / MODEL).read_bytes(), predictor.schema, predictor.manifest.classes)
        model = pickle.loads(forest.model.read_bytes())
        customers = pd.read_csv(forest.data).drop(columns="churn").sample(ROWS, random_state=1)

    trees = predictor.engine
    assert isinstance(trees, TreesEngine)
    records = records_of(customers)
    matrix = graph.encoder.encode(Validator(predictor.schema).check(records).rows)
    names = [output.name for output in graph.session.get_outputs()]
    blocks = {
        size: [np.ascontiguousarray(matrix[start : start + size]) for start in range(0, ROWS - size + 1, size)]
        for size in BATCHES
    }
    calls: dict[str, tuple[Callable[[Any], object], Sequence[Any], int]] = {
        "predictor": (predictor.run, [[record] for record in records], CALLS["predictor"]),
        "scikit-learn": (lambda record: model.predict_proba(pd.DataFrame([record])), records, CALLS["scikit-learn"]),
    }
    for size in BATCHES:
        count = max(30, 3_000 // size)
        calls[f"session {size}"] = (lambda X: graph.session.run(names, {"X": X}), blocks[size], count)
        calls[f"trees {size}"] = (trees.predict_matrix, blocks[size], count)
    # In turns, so that a busy moment of the machine meets all of them.
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(chosen.repeats + 1):
        for name, call in calls.items():
            time_s = seconds(*call)
            if turn:  # the first warms up
                found[name].append(time_s)
    medians = {name: median(times) for name, times in found.items()}
    told = f"{forest.told}; medians of {chosen.repeats} turns of {CALLS['predictor']:,} calls ({CALLS['scikit-learn']}"
    figures = [
        Figure("`Predictor.run([record])`", medians["predictor"] * 1e6, "µs"),
        Figure("scikit-learn, `predict_proba(DataFrame([record]))`", medians["scikit-learn"] * 1e6, "µs"),
        Figure("`Predictor.run` / scikit-learn", medians["predictor"] / medians["scikit-learn"], "×"),
        Figure("`Predictor.run` / bare session of one row", medians["predictor"] / medians["session 1"], "×", 3),
    ]
    for size, target_us in zip(BATCHES, (4, 3, 3, 3), strict=True):
        rows = "one row" if size == 1 else f"a row of {size:,}"
        session, engine = (medians[f"{name} {size}"] / size * 1e6 for name in ("session", "trees"))
        figures += [
            Figure(f"bare `session.run`, the array ready, {rows}", session, "µs"),
            Figure(f"tree engine, the array ready, {rows}", engine, "µs", target_us),
        ]
    write(chosen.results, "predictor", f"{told} of scikit-learn), every call with other rows", figures)


if __name__ == "__main__":
    main()

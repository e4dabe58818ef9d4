"""One row through `Predictor.run`, against the bare ONNX session and against scikit-learn, in one process.

python benchmarks/predictor.py [--data telco-churn.csv] [--repeats 5]
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from results import Figure, build, median, options, train, write

import fairlead
from fairlead.bundle.samples import records_of
from fairlead.predict.engines import OnnxEngine
from fairlead.predict.validate import Validator

CALLS = {"session": 3_000, "predictor": 3_000, "scikit-learn": 60}


def seconds(call: Callable[[], object], calls: int) -> float:
    """Give the median of `calls` single calls."""
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return median(found)


def main() -> None:
    chosen = options(__doc__, repeats=5)
    with tempfile.TemporaryDirectory() as directory:
        forest = train(chosen.data, Path(directory))
        build(forest, Path(directory) / "telco")
        predictor = fairlead.load(Path(directory) / "telco")
        model = pickle.loads(forest.model.read_bytes())
        record = records_of(pd.read_csv(forest.data).drop(columns="churn").head(1))[0]

    engine = predictor.engine
    assert isinstance(engine, OnnxEngine)
    matrix = engine.encoder.encode(Validator(predictor.schema).check([record]).rows)
    names = [output.name for output in engine.session.get_outputs()]
    calls: dict[str, Callable[[], object]] = {
        "session": lambda: engine.session.run(names, {"X": matrix}),
        "predictor": lambda: predictor.run([record]),
        "scikit-learn": lambda: model.predict_proba(pd.DataFrame([record])),
    }
    # In turns, so that a busy moment of the machine meets all three.
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(chosen.repeats + 1):
        for name, call in calls.items():
            time_s = seconds(call, CALLS[name])
            if turn:  # the first warms up
                found[name].append(time_s)
    medians = {name: median(times) for name, times in found.items()}
    told = f"{forest.told}; medians of {chosen.repeats} turns of {CALLS['session']:,} calls ({CALLS['scikit-learn']}"
    figures = [
        Figure("bare `session.run`, the array ready", medians["session"] * 1e6, "µs"),
        Figure("`Predictor.run([record])`", medians["predictor"] * 1e6, "µs"),
        Figure("scikit-learn, `predict_proba(DataFrame([record]))`", medians["scikit-learn"] * 1e6, "µs"),
        Figure("`Predictor.run` / bare session", medians["predictor"] / medians["session"], "×", 3),
        Figure("`Predictor.run` / scikit-learn", medians["predictor"] / medians["scikit-learn"], "×"),
    ]
    write(chosen.results, "predictor", f"{told} of scikit-learn)", figures)


if __name__ == "__main__":
    main()

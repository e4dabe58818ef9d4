"""What the benchmarks share: the telco forest, medians, and the tables of RESULTS.md.

Each script writes its own table between its own markers, so one can be run without the others.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pickle
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"
TELCO = ROOT.parent / "shared" / "data" / "telco-churn.csv"
LIBRARIES = ("fairlead", "scikit-learn", "onnxruntime", "numpy", "pandas", "uvicorn")


@dataclass(frozen=True)
class Figure:
    """One line of a table; `target` is a ratio or a number in `unit`: an upper bound, or a lower one if `at_least`."""

    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Forest:
    """The telco model on disk: its pickle, the customers with `churn`, and where they came from."""

    model: Path
    data: Path
    told: str


def options(description: str | None, repeats: int, seconds: int | None = None) -> argparse.Namespace:
    """Read the flags; `--seconds` is for benchmarks that have a default for it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TELCO, help="the published Telco file; made-up data without it")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page to write")
    if seconds is not None:
        parser.add_argument("--seconds", type=int, default=seconds, help="how long each measurement takes")
    return parser.parse_args()


def churn_example() -> Any:
    """Import examples/churn/run.py, which can read the published file and make one up."""
    spec = importlib.util.spec_from_file_location("churn_example", ROOT / "examples" / "churn" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(published: Path, directory: Path, seed: int = 1) -> Forest:
    """Fit one-hot, scaler and a forest of 100 on all customers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    example = churn_example()
    found = published.is_file()
    customers = example.read(published) if found else example.generate(7_043)
    X = customers.drop(columns="churn")
    words = [name for name in X if not pd.api.types.is_numeric_dtype(X[name])]
    numbers = [name for name in X if name not in words]
    columns = ColumnTransformer(
        [("word", OneHotEncoder(handle_unknown="ignore"), words), ("number", StandardScaler(), numbers)]
    )
    model = make_pipeline(columns, RandomForestClassifier(100, random_state=seed)).fit(X, customers["churn"])
    forest = Forest(
        directory / "forest.pkl",
        directory / "customers.csv",
        f"{'Telco churn as published' if found else 'made-up customers'}, {len(X):,} rows",
    )
    forest.model.write_bytes(pickle.dumps(model))
    customers.to_csv(forest.data, index=False)
    return forest


def build_command(forest: Forest, bundle: Path) -> list[str]:
    """Make the `fairlead build` of the forest; its parity runs over all customers."""
    command = [sys.executable, "-m", "fairlead", "build", str(forest.model), "-o", str(bundle)]
    return [*command, "--data", str(forest.data), "--target", "churn", "--engine", "onnx"]


def build(forest: Forest, bundle: Path) -> None:
    subprocess.run(build_command(forest, bundle), check=True, capture_output=True)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def write(page: Path, name: str, told: str, figures: Sequence[Figure]) -> None:
    """Put a table between the markers of `name`, and print it."""
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}. {told}.",
        "",
        "| | median | target | held |",
        "|---|--:|--:|---|",
        *map(_line, figures),
    ]
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, mark, rest = text.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not (mark and end_mark):
        raise SystemExit(f"{page}: expected the markers {begin} and {end}")
    table = "\n".join(lines)
    page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")
    print(table)


def _line(figure: Figure) -> str:
    value = f"{_number(figure.value)} {figure.unit}"
    if figure.target is None:
        return f"| {figure.what} | {value} | | |"
    is_held = figure.value >= figure.target if figure.at_least else figure.value <= figure.target
    sign = "≥" if figure.at_least else "≤"
    return f"| {figure.what} | {value} | {sign} {figure.target:g} {figure.unit} | {'yes' if is_held else '**no**'} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

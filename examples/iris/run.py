"""Iris: a scaler and a gradient-boosted classifier, pickled, built with a schema of friendlier names.

python examples/iris/run.py [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
from sklearn import datasets
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import fairlead

HERE = Path(__file__).parent
VIRGINICA = {"sepal_length": 7.7, "sepal_width": 3.0, "petal_length": 6.1, "petal_width": 2.3}


def train(model_path: Path) -> float:
    """Fit the pipeline, pickle it, and return its accuracy on the test split."""
    iris = datasets.load_iris()
    columns = iris["feature_names"]
    flowers = pd.DataFrame(iris["data"], columns=columns)
    flowers["target"] = iris["target"]
    known, held_out = train_test_split(flowers, test_size=0.3, random_state=47, stratify=flowers["target"])

    model = Pipeline([("scale", StandardScaler()), ("gbm", GradientBoostingClassifier(random_state=47))])
    model.fit(known[columns], known["target"])
    model_path.parent.mkdir(parents=True, exist_ok=True)
    model_path.write_bytes(pickle.dumps(model))
    return float(accuracy_score(held_out["target"], model.predict(held_out[columns])))


def build(model_path: Path, bundle: Path) -> None:
    """`fairlead build`, as from a shell."""
    command = ["build", model_path, "--schema", HERE / "schema.yaml", "--name", "iris", "-o", bundle]
    subprocess.run([sys.executable, "-m", "fairlead", *map(str, command)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where the model and its bundle go")
    out = parser.parse_args().out

    print(f"accuracy on the test split: {train(out / 'model.pickle'):.3f}", file=sys.stderr)
    build(out / "model.pickle", out / "iris")
    print(json.dumps(fairlead.load(out / "iris").predict(VIRGINICA), indent=2))


if __name__ == "__main__":
    main()

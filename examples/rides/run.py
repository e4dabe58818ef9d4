"""Rides: how long a taxi ride takes, with a feature of our own made by `features.py` in every mode.

python examples/rides/run.py [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from features import prepare
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import make_pipeline

import fairlead

HERE = Path(__file__).parent
RIDE = {"PULocationID": 130, "DOLocationID": 205, "trip_distance": 3.66}


def generate(n_rides: int = 3000) -> pd.DataFrame:
    """Make rides between a few zones: raw columns and `duration` in minutes."""
    rng = np.random.default_rng(1)
    zones = np.array([7, 41, 42, 74, 75, 97, 130, 166, 205, 244])
    start, end = rng.choice(zones, n_rides), rng.choice(zones, n_rides)
    miles = np.round(0.5 + np.abs(start - end) / 25 + rng.gamma(2, 0.6, n_rides), 2)
    minutes = 3 + 4.2 * miles + 2 * ((start + end) % 3) + rng.normal(0, 1.5, n_rides)
    return pd.DataFrame(
        {"PULocationID": start, "DOLocationID": end, "trip_distance": miles, "duration": minutes.clip(1)}
    )


def train(rides: pd.DataFrame, model_path: Path) -> None:
    model = make_pipeline(
        DictVectorizer(),
        RandomForestRegressor(max_depth=20, n_estimators=30, min_samples_leaf=10, random_state=0, n_jobs=-1),
    )
    raw = rides.drop(columns="duration").to_dict(orient="records")
    model.fit([prepare(ride) for ride in raw], rides["duration"])
    model_path.write_bytes(pickle.dumps(model))


def build(model_path: Path, sample: Path, bundle: Path) -> None:
    """`fairlead build`, as from a shell. The schema is that of the raw rides: `prepare` comes after it."""
    command = ["build", model_path, "--data", sample, "--target", "duration", "--code", HERE / "features.py"]
    command += ["--output", "ride_duration=prediction", "--name", "rides", "-o", bundle]
    subprocess.run([sys.executable, "-m", "fairlead", *map(str, command)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where the model and its bundle go")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    rides = generate()
    rides.head(500).to_parquet(out / "rides.parquet")
    train(rides, out / "rides.pkl")
    build(out / "rides.pkl", out / "rides.parquet", out / "rides")
    print(json.dumps(fairlead.load(out / "rides").predict(RIDE), indent=2))


if __name__ == "__main__":
    main()

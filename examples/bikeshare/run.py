"""Bikeshare: is this trip a member's or a casual rider's? A frame model with one-hot and scaled columns.

python examples/bikeshare/run.py [--out DIR]
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
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import fairlead

HERE = Path(__file__).parent
CATEGORIES = ["start_station", "end_station", "weekday"]
NUMBERS = ["duration_sec", "hour"]
TRIP = {
    "duration_sec": 2610,
    "start_station": "Lincoln Memorial",
    "end_station": "Jefferson Memorial",
    "hour": 14,
    "weekday": "Saturday",
}


def generate(n_trips: int = 3000) -> pd.DataFrame:
    """Make trips with the fields of 2017: members commute quickly, casual riders tour at weekends."""
    rng = np.random.default_rng(2)
    stations = ["Columbus Circle / Union Station", "Lincoln Memorial", "Jefferson Memorial", "15th & P St NW"]
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    is_member = rng.random(n_trips) < 0.7

    def pick(values: list[str], member: list[float], casual: list[float]) -> np.ndarray:
        return np.where(is_member, rng.choice(values, n_trips, p=member), rng.choice(values, n_trips, p=casual))

    seconds = 60 + np.where(is_member, rng.gamma(4, 170, n_trips), rng.gamma(4, 600, n_trips))
    return pd.DataFrame(
        {
            "duration_sec": seconds.astype(int),
            "start_station": pick(stations, [0.45, 0.05, 0.05, 0.45], [0.1, 0.5, 0.3, 0.1]),
            "end_station": pick(stations, [0.4, 0.05, 0.05, 0.5], [0.1, 0.35, 0.45, 0.1]),
            "hour": np.where(is_member, rng.choice([7, 8, 9, 17, 18], n_trips), rng.integers(10, 20, n_trips)),
            "weekday": pick(days, [0.18] * 5 + [0.05] * 2, [0.06] * 5 + [0.35] * 2),
            "member_type": np.where(is_member, "Member", "Casual"),
        }
    )


def train(trips: pd.DataFrame, model_path: Path) -> None:
    columns = ColumnTransformer(
        [("category", OneHotEncoder(handle_unknown="ignore"), CATEGORIES), ("number", StandardScaler(), NUMBERS)]
    )
    model = Pipeline([("columns", columns), ("forest", RandomForestClassifier(50, min_samples_leaf=5, random_state=0))])
    model.fit(trips[CATEGORIES + NUMBERS], trips["member_type"])
    model_path.write_bytes(pickle.dumps(model))


def build(model_path: Path, sample: Path, bundle: Path) -> None:
    """`fairlead build`, as from a shell."""
    command = ["build", model_path, "--data", sample, "--target", "member_type", "--name", "bikeshare"]
    command += ["--output", "membership=prediction", "--output", "proba=probability", "-o", bundle]
    subprocess.run([sys.executable, "-m", "fairlead", *map(str, command)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where the model and its bundle go")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    trips = generate()
    trips.head(500).to_csv(out / "trips.csv", index=False)
    train(trips, out / "bikeshare.pkl")
    build(out / "bikeshare.pkl", out / "trips.csv", out / "bikeshare")
    print(json.dumps(fairlead.load(out / "bikeshare").predict(TRIP), indent=2))


if __name__ == "__main__":
    main()

"""`fairlead score` over Parquet against the script that people write: pandas, predict, `to_parquet`.

python benchmarks/batch.py [--data telco-churn.csv] [--repeats 3] [--rows 1000000]

Every run is a process of its own, timed from its start to its end, imports and model loading included; memory is the
most that it took (RSS). Script and command take turns, on the same file with the same model.
"""

from __future__ import annotations

import argparse
import os
import pickle
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from results import ROOT, TELCO, Figure, median, train, write
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

OUTPUTS = ("--output", "churn_probability=probability:1", "--output", "churn=probability:1 >= 0.5")
PAGE = ROOT / "docs" / "benchmarks.md"
SEED = 1
SCRIPT = """
import pickle, sys
import pandas as pd

model_path, input_path, output_path = sys.argv[1:]
with open(model_path, "rb") as file:
    model = pickle.load(file)
frame = pd.read_parquet(input_path)
if isinstance(model, tuple):
    vectorizer, model = model
    X = vectorizer.transform(frame.drop(columns="customerid").to_dict(orient="records"))
else:
    X = frame
frame["churn_probability"] = model.predict_proba(X)[:, 1]
frame["churn"] = frame["churn_probability"] >= 0.5
frame["model_version"] = "1"
frame.to_parquet(output_path)
"""


@dataclass
class Run:
    """A process that has ended: seconds from start to end, and the most memory that it took."""

    time_s: float
    peak_mb: float


# A process counts as its own the memory of the one that it was forked from: so a small one stands between.
MEASURED = """
import resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def run(command: Sequence[str]) -> Run:
    done = subprocess.run([sys.executable, "-S", "-c", MEASURED, *command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    took_s, peak_kb = map(float, done.stdout.split())
    return Run(took_s, peak_kb * 1024 / 1e6)


def make_customers(customers: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """Draw customers from those there are, with numbers of their own, and give each an id."""
    rng = np.random.default_rng(SEED)
    drawn = customers.sample(n_rows, replace=True, random_state=SEED).reset_index(drop=True)
    drawn["tenure"] = rng.integers(0, 73, n_rows)
    drawn["monthlycharges"] = rng.uniform(18, 119, n_rows).round(2)
    drawn["totalcharges"] = (drawn["tenure"] * drawn["monthlycharges"]).round(2)
    drawn.insert(0, "customerid", [f"{i:08d}-TELCO" for i in range(n_rows)])
    return drawn


def fit_pair(customers: pd.DataFrame, path: Path) -> None:
    """Fit the pair of the seeds: a DictVectorizer and a LogisticRegression."""
    X = customers.drop(columns="churn")
    vectorizer = DictVectorizer(sparse=False)
    model = LogisticRegression(solver="liblinear")
    model.fit(vectorizer.fit_transform(X.to_dict(orient="records")), customers["churn"])
    path.write_bytes(pickle.dumps((vectorizer, model)))


def fairlead(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fairlead", *map(str, arguments)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TELCO, help="the published Telco file; made-up data without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, default=PAGE, help="the page to write")
    chosen = parser.parse_args()
    n_rows: int = chosen.rows
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        forest = train(chosen.data, folder)
        customers = pd.read_csv(forest.data)
        fit_pair(customers, folder / "pair.pkl")
        for name in ("pair", "forest"):
            build = fairlead("build", folder / f"{name}.pkl", "-o", folder / name, "--data", forest.data)
            run([*build, "--target", "churn", *OUTPUTS])
        rows = make_customers(customers.drop(columns="churn"), n_rows)
        rows.to_parquet(folder / "rows.parquet")
        del rows
        large = tenfold(folder / "rows.parquet", folder / "tenfold.parquet")
        script = folder / "script.py"
        script.write_text(SCRIPT)
        figures: list[Figure] = []
        for name, told, faster in (
            ("pair", "DictVectorizer, LogisticRegression", 20),
            ("forest", "ColumnTransformer, RandomForest(100)", 3.5),
        ):
            by_script: list[Run] = []
            by_us: list[Run] = []
            score = fairlead("score", folder / name)
            for _ in range(chosen.repeats):
                files = (script, folder / f"{name}.pkl", folder / "rows.parquet", folder / "script.parquet")
                by_script.append(run([sys.executable, *map(str, files)]))
                by_us.append(run([*score, str(folder / "rows.parquet"), str(folder / "ours.parquet")]))
            check(folder / "script.parquet", folder / "ours.parquet")
            tenfold_run = run([*score, str(large), str(folder / "large.parquet")])
            figures += compared(told, n_rows, by_script, by_us, tenfold_run, faster)
        figures += against_ray(folder, large, chosen.repeats, 10 * n_rows)
    write(
        chosen.results,
        "batch",
        f"{n_rows:,} rows drawn from {forest.told}, Parquet to Parquet, all columns kept; medians of {chosen.repeats} "
        f"whole processes each, in turns, those of {10 * n_rows:,} rows of one",
        figures,
    )


def tenfold(source: Path, target: Path) -> Path:
    table = pq.read_table(source)
    with pq.ParquetWriter(target, table.schema) as writer:
        for _ in range(10):
            writer.write_table(table)
    return target


def check(script: Path, ours: Path) -> None:
    """See that both wrote the same."""
    columns = ["customerid", "churn_probability", "churn"]
    first, second = (pd.read_parquet(path, columns=columns) for path in (script, ours))
    assert first["customerid"].equals(second["customerid"])
    np.testing.assert_allclose(first["churn_probability"], second["churn_probability"], atol=1e-6)
    assert (first["churn"] != second["churn"]).mean() < 1e-6


def compared(told: str, n_rows: int, by_script: list[Run], by_us: list[Run], large: Run, faster: float) -> list[Figure]:
    script_s, us_s = (median([one.time_s for one in runs]) for runs in (by_script, by_us))
    script_mb, us_mb = (median([one.peak_mb for one in runs]) for runs in (by_script, by_us))
    return [
        Figure(f"{told}: the script", n_rows / script_s, "rows/s"),
        Figure(f"{told}: `fairlead score`", n_rows / us_s, "rows/s"),
        Figure(f"{told}: `fairlead score` / the script", script_s / us_s, "×", faster, at_least=True),
        Figure(f"{told}: `fairlead score`, ten times the rows", 10 * n_rows / large.time_s, "rows/s"),
        Figure(f"{told}: memory of the script", script_mb, "MB"),
        Figure(f"{told}: memory of `fairlead score`", us_mb, "MB"),
        Figure(f"{told}: memory of `fairlead score` / of the script", us_mb / script_mb, "×", 0.2),
        Figure(f"{told}: memory for ten times the rows / for the rows", large.peak_mb / us_mb, "×", 1.2),
    ]


def against_ray(folder: Path, large: Path, repeats: int, n_rows: int) -> list[Figure]:
    """Score files with the forest, here and through a Ray that runs already on this machine."""
    # Who may use the cluster: the command, which has this process's environment.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    import ray

    context = ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="error")
    address = context.address_info["gcs_address"]
    try:
        return [
            *by_ray(folder, folder / "rows.parquet", address, repeats, n_rows // 10),
            *by_ray(folder, large, address, repeats, n_rows, 0.7),
        ]
    finally:
        ray.shutdown()


def by_ray(
    folder: Path, rows: Path, address: str, repeats: int, n_rows: int, target: float | None = None
) -> list[Figure]:
    score = fairlead("score", folder / "forest", rows, folder / "by_ray.parquet")
    turns = [(run(score), run([*score, "--engine", "ray", "--address", address])) for _ in range(repeats)]
    local_s, ray_s = (median([turn[i].time_s for turn in turns]) for i in (0, 1))
    told = f"forest, {n_rows:,} rows"
    return [
        Figure(f"{told}: `fairlead score`", n_rows / local_s, "rows/s"),
        Figure(f"{told}: `--engine ray`, on the same machine", n_rows / ray_s, "rows/s"),
        Figure(f"{told}: `--engine ray` / local", local_s / ray_s, "×", target, at_least=True),
    ]


if __name__ == "__main__":
    main()

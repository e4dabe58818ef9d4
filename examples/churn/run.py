"""Churn: a `(DictVectorizer, LogisticRegression)` pair in one pickle, with outputs of our own names.

    python examples/churn/run.py [--data telco-churn.csv] [--out DIR]

Without `--data` the customers are made up; with it they are those of the public Telco file.
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
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

import fairlead

HERE = Path(__file__).parent
ADD_ONS = ["onlinesecurity", "onlinebackup", "deviceprotection", "techsupport", "streamingtv", "streamingmovies"]
CUSTOMER = {
    "customerid": "8879-zkjof",  # no feature: ignored, and counted
    **{"gender": "female", "seniorcitizen": 0, "partner": "no", "dependents": "no", "tenure": 41},
    **{"phoneservice": "yes", "multiplelines": "no", "internetservice": "dsl", "onlinesecurity": "yes"},
    **{"onlinebackup": "no", "deviceprotection": "yes", "techsupport": "yes", "streamingtv": "yes"},
    **{"streamingmovies": "yes", "contract": "one_year", "paperlessbilling": "yes"},
    **{"paymentmethod": "bank_transfer_(automatic)", "monthlycharges": 79.85, "totalcharges": 3320.75},
}
FEATURES = [name for name in CUSTOMER if name != "customerid"]


def read(path: Path) -> pd.DataFrame:
    """Read the Telco file: names and values in lower case with underscores, `churn` as 0 or 1."""
    table = pd.read_csv(path, dtype={"TotalCharges": "string"})
    table.columns = table.columns.str.lower()
    # New customers have a blank there: nothing was charged yet.
    table["totalcharges"] = pd.to_numeric(table["totalcharges"].str.strip().replace("", "0")).astype(float)
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].str.lower().str.replace(" ", "_")
    table["churn"] = (table["churn"] == "yes").astype(int)
    return table[[*FEATURES, "churn"]]


def generate(n_customers: int = 3000) -> pd.DataFrame:
    """Make customers with the same features, who leave the more likely the looser their contract."""
    rng = np.random.default_rng(3)

    def pick(*values: str) -> np.ndarray:
        return rng.choice(values, n_customers)

    table = pd.DataFrame({name: pick("no", "yes") for name in FEATURES})
    table["gender"] = pick("female", "male")
    table["seniorcitizen"] = rng.binomial(1, 0.16, n_customers)
    table["tenure"] = rng.integers(0, 73, n_customers)
    table["internetservice"] = pick("dsl", "fiber_optic", "no")
    table.loc[table["phoneservice"] == "no", "multiplelines"] = "no_phone_service"
    table.loc[table["internetservice"] == "no", ADD_ONS] = "no_internet_service"
    table["contract"] = pick("month-to-month", "one_year", "two_year")
    automatic = ["bank_transfer_(automatic)", "credit_card_(automatic)"]
    table["paymentmethod"] = pick(*automatic, "electronic_check", "mailed_check")
    table["monthlycharges"] = np.round(rng.uniform(18, 119, n_customers), 2)
    table["totalcharges"] = np.round(table["monthlycharges"] * table["tenure"], 2)
    loose = 1.6 * (table["contract"] == "month-to-month") + 1.1 * (table["internetservice"] == "fiber_optic")
    leaving = 1 / (1 + np.exp(1.2 - loose + 0.045 * table["tenure"]))
    table["churn"] = (rng.random(n_customers) < leaving).astype(int)
    return table


def train(customers: pd.DataFrame, model_path: Path) -> None:
    vectorizer = DictVectorizer(sparse=False)
    X = vectorizer.fit_transform(customers[FEATURES].to_dict(orient="records"))
    model = LogisticRegression(solver="liblinear", random_state=1).fit(X, customers["churn"])
    model_path.write_bytes(pickle.dumps((vectorizer, model)))


def build(model_path: Path, sample: Path, bundle: Path) -> None:
    """`fairlead build`, as from a shell."""
    command = ["build", model_path, "--data", sample, "--target", "churn", "--name", "churn", "-o", bundle]
    command += ["--output", "churn_probability=probability:1", "--output", "churn=probability:1 >= 0.5"]
    subprocess.run([sys.executable, "-m", "fairlead", *map(str, command)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the Telco customer churn file, as it is published")
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where the model and its bundle go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    customers = read(options.data) if options.data else generate()
    customers.to_csv(options.out / "customers.csv", index=False)
    train(customers, options.out / "churn-model.bin")
    build(options.out / "churn-model.bin", options.out / "customers.csv", options.out / "churn")
    print(json.dumps(fairlead.load(options.out / "churn").predict(CUSTOMER), indent=2))


if __name__ == "__main__":
    main()

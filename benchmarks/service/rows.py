"""The model, and the rows that every peer is asked: the same ones in the same order."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from environment import Environment
from peer import HERE, Peer, Record

from fairlead.bundle.samples import records_of

sys.path.append(str(HERE.parent))
from results import TELCO, train

ROWS, SEED = 512, 7


@dataclass(frozen=True)
class Rows:
    """A model on disk, the rows, and the probability of churn that scikit-learn gives each.

    Parameters
    ----------
    told : where the customers came from.
    refitted : the scikit-learn of the peer's environment when the model had to be trained again there.
    """

    model: Path
    data: Path
    records: list[Record]
    expected: list[float]
    told: str
    refitted: str | None = None

    def bodies(self, peer: Peer) -> list[bytes]:
        """Make one body of JSON for each row, in the peer's protocol."""
        return [json.dumps(peer.body(record), separators=(",", ":")).encode() for record in self.records]


def make(folder: Path) -> Rows:
    """Train the forest and choose the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    forest = train(TELCO, folder)
    chosen = pd.read_csv(forest.data).drop(columns="churn").sample(ROWS, random_state=SEED)
    expected = pickle.loads(forest.model.read_bytes()).predict_proba(chosen)[:, 1].tolist()
    return Rows(forest.model, forest.data, records_of(chosen), expected, forest.told)


def for_environment(rows: Rows, environment: Environment, folder: Path) -> Rows:
    """Give the rows with a model that the environment can load: the same, or one trained there."""
    if environment.has_same_model:
        return rows
    asked = folder / "rows.json"
    asked.write_text(json.dumps(rows.records), encoding="utf-8")
    command = [str(environment.python), str(HERE / "refit.py"), str(TELCO), str(folder), str(asked)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    expected = json.loads((folder / "expected.json").read_bytes())
    version = environment.versions["scikit-learn"]
    return Rows(folder / "forest.pkl", rows.data, rows.records, expected, rows.told, version)

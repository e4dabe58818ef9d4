"""Train the model again, with the libraries of the environment that runs this, and tell what it says about some rows.

python refit.py CUSTOMERS_CSV FOLDER ROWS_JSON; for peers that cannot be installed with the scikit-learn of the others.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]
# `results` reads the customers with the example, which imports fairlead: its core needs nothing that is not here.
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]


def main() -> None:
    from results import train

    published, folder, rows = map(Path, sys.argv[1:])
    model = pickle.loads(train(published, folder).model.read_bytes())
    records = json.loads(rows.read_bytes())
    expected = model.predict_proba(pd.DataFrame(records))[:, 1].tolist()
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main()

"""BentoML with adaptive batching: one `predict_proba` for what has gathered."""

import os
import pickle
from pathlib import Path
from typing import Any

import bentoml
import pandas as pd


@bentoml.service(workers=2)
class Telco:
    def __init__(self) -> None:
        self.model = pickle.loads(Path(os.environ["MODEL"]).read_bytes())

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, customers: list[dict[str, Any]]) -> list[float]:
        return self.model.predict_proba(pd.DataFrame(customers))[:, 1].tolist()

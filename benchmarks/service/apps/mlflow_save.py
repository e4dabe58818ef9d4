"""python mlflow_save.py PICKLE DIRECTORY: the model in MLflow's format, answering with probabilities."""

import pickle
import sys
from pathlib import Path

import mlflow.sklearn

model, directory = map(Path, sys.argv[1:])
mlflow.sklearn.save_model(
    pickle.loads(model.read_bytes()),
    directory,
    pyfunc_predict_fn="predict_proba",
    serialization_format="cloudpickle",
    pip_requirements=["scikit-learn"],
)

"""Flask as the course's script has it: unpickle once, predict per request."""

import os
import pickle
from pathlib import Path

import pandas as pd
from flask import Flask, jsonify, request

model = pickle.loads(Path(os.environ["MODEL"]).read_bytes())
app = Flask("churn")


@app.route("/predict", methods=["POST"])
def predict():
    customer = request.get_json()
    prediction = model.predict_proba(pd.DataFrame([customer]))[0, 1]
    return jsonify({"churn_probability": float(prediction), "churn": bool(prediction >= 0.5)})

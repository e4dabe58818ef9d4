"""FastAPI with a pydantic model of the customer.

`async def`, although it computes: with a thread pool (`def`) the threads of a worker only contend for the GIL.
"""

import os
import pickle
from pathlib import Path
from typing import Literal

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

model = pickle.loads(Path(os.environ["MODEL"]).read_bytes())
app = FastAPI()

YesNo = Literal["yes", "no"]
AddOn = Literal["yes", "no", "no_internet_service"]


class Customer(BaseModel):
    gender: Literal["female", "male"]
    seniorcitizen: int
    partner: YesNo
    dependents: YesNo
    tenure: int
    phoneservice: YesNo
    multiplelines: Literal["yes", "no", "no_phone_service"]
    internetservice: Literal["dsl", "fiber_optic", "no"]
    onlinesecurity: AddOn
    onlinebackup: AddOn
    deviceprotection: AddOn
    techsupport: AddOn
    streamingtv: AddOn
    streamingmovies: AddOn
    contract: Literal["month-to-month", "one_year", "two_year"]
    paperlessbilling: YesNo
    paymentmethod: str
    monthlycharges: float
    totalcharges: float


class Prediction(BaseModel):
    churn_probability: float
    churn: bool


@app.post("/predict")
async def predict(customer: Customer) -> Prediction:
    prediction = model.predict_proba(pd.DataFrame([customer.model_dump()]))[0, 1]
    return Prediction(churn_probability=prediction, churn=prediction >= 0.5)

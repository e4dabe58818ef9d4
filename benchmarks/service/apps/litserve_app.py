"""LitServe with dynamic batching: `python litserve_app.py PORT`."""

import os
import pickle
import sys
from pathlib import Path

import litserve as ls
import pandas as pd


class Telco(ls.LitAPI):
    def setup(self, device):
        self.model = pickle.loads(Path(os.environ["MODEL"]).read_bytes())

    def decode_request(self, request):
        return request

    def batch(self, inputs):
        return pd.DataFrame(inputs)

    def predict(self, x):
        return self.model.predict_proba(x)[:, 1].tolist()

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"churn_probability": output}


if __name__ == "__main__":
    server = ls.LitServer(Telco(max_batch_size=64, batch_timeout=0.005), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        access_log=False,
    )

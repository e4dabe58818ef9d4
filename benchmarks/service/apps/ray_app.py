"""Ray Serve with one replica and its batching: `python ray_app.py PORT`."""

import os
import pickle
import signal
import sys
import tempfile
from pathlib import Path

import pandas as pd
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=512, ray_actor_options={"num_cpus": 1})
class Telco:
    def __init__(self, model: str) -> None:
        self.model = pickle.loads(Path(model).read_bytes())

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def predict(self, customers: list[dict]) -> list[dict]:
        probabilities = self.model.predict_proba(pd.DataFrame(customers))[:, 1].tolist()
        return [{"churn_probability": one} for one in probabilities]

    async def __call__(self, request: Request) -> dict:
        return await self.predict(await request.json())


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Ray's sockets have long names, and the path of a socket at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100_000_000,
            _temp_dir=directory,
            _node_ip_address="127.0.0.1",
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
            serve.run(Telco.bind(os.environ["MODEL"]), route_prefix="/")
            signal.pause()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()

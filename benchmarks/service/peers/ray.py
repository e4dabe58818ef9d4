"""Ray Serve, one replica."""

from collections.abc import Mapping

from peer import APPS, Peer, Place


def environ(place: Place) -> Mapping[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


def command(place: Place) -> list[str]:
    return [str(place.python), str(APPS / "ray_app.py"), str(place.port)]


PEER = Peer(
    name="ray",
    title="Ray Serve",
    settings="one replica, one proxy, `num_cpus=2`, no dashboard; `@serve.batch(max_batch_size=64, "
    "batch_wait_timeout_s=0.005)`, `max_ongoing_requests=512`; a `DataFrame` of the whole batch",
    requirements=("ray[serve]",),
    versions=("ray", "uvicorn"),
    environ=environ,
    command=command,
    path="/predict",
    probability=lambda answer: answer["churn_probability"],
)

"""LitServe with dynamic batching."""

from peer import APPS, Peer, Place


def command(place: Place) -> list[str]:
    return [str(place.python), str(APPS / "litserve_app.py"), str(place.port)]


PEER = Peer(
    name="litserve",
    title="LitServe",
    settings="`max_batch_size=64, batch_timeout=0.005`, one API server and one worker, no access log; "
    "a `DataFrame` of the whole batch",
    requirements=("litserve",),
    versions=("litserve", "uvicorn"),
    command=command,
    path="/predict",
    probability=lambda answer: answer["churn_probability"],
)

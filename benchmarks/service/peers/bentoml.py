"""BentoML with adaptive batching."""

from collections.abc import Mapping

from peer import Peer, Place


def environ(place: Place) -> Mapping[str, str]:
    return {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(place.folder / "home")}


def command(place: Place) -> list[str]:
    return [place.script("bentoml"), "serve", "bentoml_app:Telco", "--host", "127.0.0.1", "--port", str(place.port)]


PEER = Peer(
    name="bentoml",
    title="BentoML",
    settings="`batchable=True, max_batch_size=64`, two workers (one gave less); a `DataFrame` of the whole batch",
    requirements=("bentoml",),
    versions=("bentoml", "uvicorn"),
    environ=environ,
    command=command,
    path="/predict",
    body=lambda record: {"customers": [record]},
    probability=lambda answer: answer[0],
)

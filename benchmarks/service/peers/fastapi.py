"""FastAPI under uvicorn."""

from peer import Peer, Place


def command(place: Place) -> list[str]:
    called = [place.script("uvicorn"), "fastapi_app:app", "--port", str(place.port), "--workers", "2"]
    return [*called, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]


PEER = Peer(
    name="fastapi",
    title="FastAPI + uvicorn",
    settings="`uvicorn --workers 2` with uvloop and httptools, no access log; a pydantic model of the customer, "
    "an `async def` that calls `predict_proba`",
    requirements=("fastapi", "uvicorn[standard]"),
    versions=("fastapi", "uvicorn", "pydantic"),
    command=command,
    path="/predict",
    probability=lambda answer: answer["churn_probability"],
)

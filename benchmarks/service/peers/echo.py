"""The ceiling: a bare ASGI app under the uvicorn that fairlead runs on, in fairlead's own environment."""

from peer import Peer, Place


def command(place: Place) -> list[str]:
    called = [str(place.python), "-m", "uvicorn", "echo_app:app", "--port", str(place.port), "--workers", "2"]
    return [*called, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--lifespan", "off"]


PEER = Peer(
    name="echo",
    title="echo (no model)",
    settings="a bare ASGI app that sends the body back, `uvicorn --workers 2` with uvloop and httptools as locked for "
    "fairlead, no access log",
    versions=("uvicorn", "uvloop", "httptools"),
    command=command,
    path="/predict",
    probability=None,
    role="ceiling",
    in_turns=True,
)

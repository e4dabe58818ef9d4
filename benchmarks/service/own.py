"""How fairlead itself is built and started: the one place where its flags are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from peer import Peer, Place

FLAGS = ("--workers", "2")


def fairlead(name: str, title: str, engine: str, told: str, in_turns: bool) -> Peer:
    """Make the peer of one engine."""
    return Peer(
        name=name,
        title=title,
        settings=f"`fairlead build --engine {engine}`, `fairlead serve {' '.join(FLAGS)}`: {told}",
        versions=("fairlead", "onnxruntime" if engine == "onnx" else "scikit-learn", "uvicorn"),
        prepare=_build(engine),
        command=_serve,
        path="/predict",
        probability=lambda answer: answer["probabilities"]["1"],
        role="own",
        in_turns=in_turns,
    )


def _build(engine: str) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        command = [place.script("fairlead"), "build", str(place.model), "-o", str(place.folder / "telco")]
        command += ["--data", str(place.data), "--target", "churn", "--engine", engine]
        subprocess.run(command, check=True, capture_output=True, text=True)

    return prepare


def _serve(place: Place) -> list[str]:
    bundle = str(place.folder / "telco")
    return [place.script("fairlead"), "serve", bundle, "--port", str(place.port), *FLAGS]

"""Flask under gunicorn: the script that most courses teach."""

from peer import Peer, Place


def command(place: Place) -> list[str]:
    return [place.script("gunicorn"), "-w", "2", "-b", f"127.0.0.1:{place.port}", "flask_app:app"]


PEER = Peer(
    name="flask",
    title="Flask + gunicorn",
    settings="`gunicorn -w 2`; the pickle loaded once a worker, "
    "`predict_proba` on a `DataFrame` of one row per request",
    requirements=("flask", "gunicorn"),
    versions=("flask", "gunicorn"),
    command=command,
    path="/predict",
    probability=lambda answer: answer["churn_probability"],
)

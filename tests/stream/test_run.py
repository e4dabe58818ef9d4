from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.config import CacheSettings, ModelSettings, Settings, ShadowSettings, StreamSettings
from fairlead.errors import BrokerError, ConfigError, ServeError
from fairlead.stream.models import chosen_model
from fairlead.stream.run import _stream_of, run


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Take back what a process of its own may keep: how it logs and collects."""
    loggers = [logging.getLogger(name) for name in ("fairlead", "uvicorn")]
    before = [(one, one.handlers[:], one.propagate, one.level) for one in loggers]
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    for one, handlers, propagate, level in before:
        one.handlers[:] = handlers
        one.propagate = propagate
        one.setLevel(level)


ONE = ModelSettings("one", refresh_s=5)
TWO = ModelSettings("two")


def chosen(
    models: dict[str, ModelSettings], name: str | None = None, source: str | None = None, refresh_s: float | None = None
) -> ModelSettings:
    return chosen_model(Settings(models, stream=StreamSettings(model=name)), source, refresh_s, {})


def test_a_source_goes_over_the_models_of_the_configuration() -> None:
    assert chosen({"one": ONE}, source="three") == ModelSettings("three")
    assert chosen({}, source="three", refresh_s=2) == ModelSettings("three", refresh_s=2)


def test_the_only_model_is_meant_or_the_one_that_is_named() -> None:
    assert chosen({"one": ONE}) is ONE
    assert chosen({"one": ONE, "two": TWO}, "two") is TWO
    assert chosen({"one": ONE, "two": TWO}, "one", refresh_s=7) == ModelSettings("one", refresh_s=7)


@pytest.mark.parametrize(
    ("models", "name", "told"),
    [
        ({"one": ONE, "two": TWO}, None, "there are one, two: name one with --model"),
        ({"one": ONE, "two": TWO}, "three", r"stream\.model: expected one of one, two"),
        ({}, None, "expected a model to score with: got none"),
        ({}, "three", r"stream\.model: expected one of models, of which there are none"),
    ],
)
def test_it_has_to_be_clear_which_model_is_meant(models: Any, name: str | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        chosen(models, name)


def test_the_environment_may_name_one() -> None:
    environ = {"MODEL_LOCATION": "/models/rides"}
    assert chosen_model(Settings(), None, None, environ).source == "/models/rides"


def settings(folder: Path, **more: Any) -> StreamSettings:
    places = {
        "from_": f"file://{folder}/in.jsonl",
        "to": f"file://{folder}/out",
        "dead_letter": f"file://{folder}/dead",
    }
    return StreamSettings(**({**places, "state_directory": str(folder), "port": 0} | more))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"from_": None}, "--from: expected an address such as kinesis://rides, got nothing"),
        ({"to": None}, "--to: expected an address"),
        ({"dead_letter": None}, "--dead-letter: expected an address"),
        ({"from_": "memory://a", "to": "memory://a"}, "--to: expected another stream than --from"),
        (
            {"from_": "redis://me:s3cret@h/a", "dead_letter": "redis://h/a"},
            "--dead-letter: expected another stream",
        ),
        ({"to": "pigeon://me:s3cret@loft/x"}, "pigeon://loft/x: no such broker"),
        ({"dead_letter": "redis://me:s3cret@loft"}, "redis://loft: expected"),
        ({"from_": "memory://a/b"}, "memory://a/b: expected memory://NAME"),
        ({"overflow": "https://me:s3cret@host/x"}, "overflow: expected a directory or s3://BUCKET/PREFIX"),
        ({"features": "a", "id": "a"}, "id: expected another place than a"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_opened(
    bundle: Path, tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(ModelSettings(str(bundle)), settings(tmp_path, **more), CacheSettings())
    assert told in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_state_needs_a_place(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.stream.run.state_directory", lambda *_: None)
    with pytest.raises(ConfigError, match=r"stream\.state_directory: expected a directory, as the user has no home"):
        run(ModelSettings(str(bundle)), settings(tmp_path, state_directory=None), CacheSettings())


def test_it_scores_in_this_process_too(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"size": 1}\n' * 3)
    end = run(ModelSettings(str(bundle)), settings(tmp_path), CacheSettings())
    assert (end.model, end.version, end.records, end.reason) == ("price", "1", 3, "")
    assert len((tmp_path / "out").read_bytes().splitlines()) == 3


def test_what_has_no_part_in_a_stream_is_left_out_and_told(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"size": 1}\n')
    shadow = ShadowSettings(str(tmp_path / "nothing is here"))
    end = run(
        ModelSettings(str(bundle), isolation="process", shadow=shadow), settings(tmp_path, results="r"), CacheSettings()
    )
    assert (end.records, end.dead_letters) == (1, 0)
    told = capsys.readouterr().err
    assert "shadow: left out of a stream: run a second consumer" in told
    assert "isolation and lazy: left out of a stream" in told


def test_what_is_no_bundle_or_no_stream_ends_it(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"in\.jsonl: cannot be read"):
        run(ModelSettings(str(bundle)), settings(tmp_path), CacheSettings())
    with pytest.raises(ServeError, match="cannot listen"):
        run(ModelSettings(str(bundle)), settings(tmp_path, host="256.0.0.1"), CacheSettings())


def test_streams_of_two_databases_are_two() -> None:
    one, other = "redis://h/rides?db=0&maxlen=5", "redis://h/rides?db=1"
    assert _stream_of(one) != _stream_of(other)
    assert _stream_of(one) == _stream_of("redis://me:x@h/rides?db=0")

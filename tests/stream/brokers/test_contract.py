"""What every broker has to do that is found, here or by an entry point."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import ConfigError
from fairlead.stream import brokers
from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions

# An address of each broker, and what is none of it.
ADDRESSES: dict[str, tuple[str, list[str]]] = {
    "amqp": (
        "amqp://me:s3cret@localhost/rides",
        ["amqp://", "amqp://me:s3cret@localhost", "amqp://me:s3cret@localhost/"],
    ),
    "amqps": ("amqps://me:s3cret@localhost/rides", ["amqps://me:s3cret@localhost"]),
    "file": ("file:///var/rides.jsonl", ["file://", "file:///", "file://rides/.."]),
    "kafka": (
        "kafka://me:s3cret@localhost:9092/rides",
        ["kafka://", "kafka://me:s3cret@localhost", "kafka://me:s3cret@/x"],
    ),
    "kinesis": (
        "kinesis://rides?region=eu-west-1",
        ["kinesis://", "kinesis://me:s3cret@rides", "kinesis://a/b?region=x"],
    ),
    "memory": ("memory://rides", ["memory://", "memory://rides/x", "memory:///rides"]),
    "nats": ("nats://me:s3cret@localhost/rides", ["nats://", "nats://me:s3cret@localhost", "nats://me:s3cret@/rides"]),
    "redis": (
        "redis://me:s3cret@localhost/rides",
        ["redis://", "redis://me:s3cret@localhost", "redis://me:s3cret@h/a/b"],
    ),
    "rediss": ("rediss://me:s3cret@localhost/rides", ["rediss://me:s3cret@localhost"]),
}
# Which extra brings what a broker needs.
EXTRAS = {name: None if name in ("file", "memory") else "aws" if name == "kinesis" else "stream" for name in ADDRESSES}
ENVIRON = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "HOME": "/nowhere"}


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an address is checked without a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


def open_both(text: str, folder: Path) -> tuple[Any, Any]:
    options = SourceOptions(checkpoints=folder / "checkpoints.sqlite", environ=ENVIRON)
    return brokers.open_source(text, options), brokers.open_sink(text, ENVIRON)


def test_every_broker_has_an_address_here() -> None:
    assert brokers.names() == sorted(ADDRESSES)


@pytest.mark.parametrize("scheme", sorted(ADDRESSES))
def test_it_opens_both_ways_and_touches_nothing(scheme: str, tmp_path: Path) -> None:
    module = brokers.broker_of(Address.parse(ADDRESSES[scheme][0]))
    assert list(inspect.signature(module.open_source).parameters) == ["address", "options"]
    assert list(inspect.signature(module.open_sink).parameters) == ["address", "environ"]
    source, sink = open_both(ADDRESSES[scheme][0], tmp_path)
    assert source.is_over is False
    assert source.lag() == [] or source.lag()[0].records in (None, 0)
    assert sink.max_message_bytes is None or sink.max_message_bytes > 0
    for made, does in ((source, ("start", "receive", "commit", "close")), (sink, ("start", "publish", "close"))):
        assert all(inspect.iscoroutinefunction(getattr(made, name)) for name in does)
    assert list(inspect.signature(source.receive).parameters) == ["max_records", "max_wait_s"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", sorted(ADDRESSES))
def test_one_that_was_never_started_is_closed(scheme: str, tmp_path: Path) -> None:
    import asyncio

    async def work() -> None:
        for one in open_both(ADDRESSES[scheme][0], tmp_path):
            await one.close()

    asyncio.run(work())


@pytest.mark.parametrize("scheme", sorted(ADDRESSES))
@pytest.mark.parametrize("way", [0, 1], ids=["source", "sink"])
def test_an_option_that_it_does_not_have_is_refused(scheme: str, way: int, tmp_path: Path) -> None:
    text = ADDRESSES[scheme][0]
    wrong = f"{text}{'&' if '?' in text else '?'}no-such-option=1"
    with pytest.raises(ConfigError, match="no such option: no-such-option; known are ") as caught:
        _opened(wrong, way, tmp_path)
    assert str(caught.value).startswith(str(Address.parse(wrong)))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", [one for _, wrong in ADDRESSES.values() for one in wrong])
@pytest.mark.parametrize("way", [0, 1], ids=["source", "sink"])
def test_an_address_that_is_none_is_refused(text: str, way: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected") as caught:
        _opened(text, way, tmp_path)
    assert "s3cret" not in str(caught.value)
    assert text.partition(":")[0] in str(caught.value)


def _opened(text: str, way: int, folder: Path) -> object:
    if way:
        return brokers.open_sink(text, ENVIRON)
    return brokers.open_source(text, SourceOptions(checkpoints=folder / "checkpoints.sqlite", environ=ENVIRON))


WITHOUT = """
import importlib.abc, json, sys
from pathlib import Path

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {"boto3", "botocore", "faststream", "aiokafka", "redis", "nats", "aio_pika", "aiormq"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from fairlead.errors import MissingExtra
from fairlead.stream import brokers
from fairlead.stream.broker import SourceOptions

told = {}
for text in sys.argv[1:]:
    options = SourceOptions(checkpoints=Path("nowhere"), environ={})
    for way in (lambda: brokers.open_source(text, options), lambda: brokers.open_sink(text, {})):
        try:
            way()
            told.setdefault(text, []).append(None)
        except MissingExtra as error:
            told.setdefault(text, []).append(str(error))
print(json.dumps(told))
"""


def test_a_library_that_is_absent_names_its_cure() -> None:
    texts = {scheme: text for scheme, (text, _) in ADDRESSES.items()}
    done = subprocess.run([sys.executable, "-c", WITHOUT, *texts.values()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for scheme, text in texts.items():
        extra = EXTRAS[scheme]
        for told in found[text]:
            assert (told is None) if extra is None else told.endswith(f"run `pip install 'fairlead[{extra}]'`")


def test_an_unknown_scheme_lists_those_that_there_are(tmp_path: Path) -> None:
    for scheme in ("carrier-pigeon", "__init__", "amqp.sink", "kinesis2"):
        with pytest.raises(ConfigError) as caught:
            open_both(f"{scheme}://me:s3cret@loft/rides", tmp_path)
        known = ", ".join(f"{one}://" for one in sorted(ADDRESSES))
        place = "expected an address" if scheme == "__init__" else f"no such broker: known are {known}"
        assert place in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_a_broker_of_another_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pigeons.py").write_text(
        "def open_source(address, options):\n    return ('source', address.netloc, options.group)\n\n\n"
        "def open_sink(address, environ):\n    return ('sink', address.netloc, dict(environ))\n"
    )
    about = tmp_path / "pigeons-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1.0\n")
    # The second may not take the place of one that is here.
    (about / "entry_points.txt").write_text("[fairlead.brokers]\ncarrier-pigeon = pigeons\nmemory = pigeons\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert brokers.names() == sorted([*ADDRESSES, "carrier-pigeon"])
    options = SourceOptions(group="g")
    assert brokers.open_source("carrier-pigeon://loft", options) == ("source", "loft", "g")
    assert brokers.open_sink("carrier-pigeon://loft", {"a": "b"}) == ("sink", "loft", {"a": "b"})
    assert "memory" in type(brokers.open_sink("memory://rides", {})).__module__
    monkeypatch.delitem(sys.modules, "pigeons", raising=False)

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.sources import Resolved, parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

Fetch = Callable[[Resolved], dict[str, bytes]]


@pytest.fixture(scope="module")
def place(s3_server: Any, files: Path) -> str:
    address: str = s3_server.put("team/churn", files)
    s3_server.put("team/churn-old", files)
    s3_server.client.put_object(Bucket="models", Key="team/churn/data/", Body=b"")
    return address


def test_a_prefix(place: str, s3_server: Any, settings: CacheSettings, content: dict[str, bytes], fetch: Fetch) -> None:
    for text in (place, place + "/"):
        resolved = resolve(parse(text), settings, s3_server.environ)
        assert fetch(resolved) == content
        assert (resolved.name, resolved.version, resolved.source) == ("churn", None, place)


def test_a_file_by_its_key(
    place: str, s3_server: Any, settings: CacheSettings, content: dict[str, bytes], fetch: Fetch
) -> None:
    resolved = resolve(parse(f"{place}/model.pkl"), settings, s3_server.environ)

    assert fetch(resolved) == {"model.pkl": content["model.pkl"]}
    assert resolved.store.files()[0].alone
    assert resolved.name == "model"


def test_reading_from_the_middle(
    place: str, s3_server: Any, settings: CacheSettings, content: dict[str, bytes]
) -> None:
    store = resolve(parse(place), settings, s3_server.environ).store
    (file,) = [file for file in store.files() if file.name == "model.pkl"]

    assert b"".join(store.read(file, 300_001)) == content["model.pkl"][300_001:]
    assert b"".join(store.read(file, len(content["model.pkl"]))) == b""


def test_a_changed_object_is_another_key_and_is_not_mixed(s3_server: Any, settings: CacheSettings) -> None:
    s3_server.client.put_object(Bucket="models", Key="changing/model.pkl", Body=b"one" * 100)
    source = parse("s3://models/changing")
    before = resolve(source, settings, s3_server.environ)
    (file,) = before.store.files()
    s3_server.client.put_object(Bucket="models", Key="changing/model.pkl", Body=b"two" * 100)

    assert resolve(source, settings, s3_server.environ).key != before.key
    for start in (0, 100):
        with pytest.raises(SourceError, match="changed while it was fetched") as caught:
            list(before.store.read(file, start))
        assert type(caught.value) is SourceError


def test_an_object_that_went_away(s3_server: Any, settings: CacheSettings) -> None:
    s3_server.client.put_object(Bucket="models", Key="going/model.pkl", Body=b"one")
    store = resolve(parse("s3://models/going"), settings, s3_server.environ).store
    (file,) = store.files()
    s3_server.client.delete_object(Bucket="models", Key="going/model.pkl")

    with pytest.raises(SourceError, match="changed while it was fetched"):
        list(store.read(file, 0))


def test_what_is_not_there(place: str, s3_server: Any, settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match=r"s3://models/team/chur: nothing is there \(beside it: .*team/churn/"):
        resolve(parse("s3://models/team/chur"), settings, s3_server.environ)
    with pytest.raises(SourceError, match="nor beside it"):
        resolve(parse("s3://models/no/where"), settings, s3_server.environ)
    with pytest.raises(SourceError, match=f"no such bucket at {s3_server.url}"):
        resolve(parse("s3://modells/team/churn"), settings, s3_server.environ)


@pytest.mark.parametrize("key", ["unsafe/a/../../x", "unsafe//x", "unsafe/a\\x", "unsafe/a\tb"])
def test_unsafe_names_are_refused(key: str, s3_server: Any, settings: CacheSettings) -> None:
    s3_server.client.put_object(Bucket="models", Key=key, Body=b"")
    try:
        with pytest.raises(SourceError, match="expected the relative name of a file"):
            resolve(parse("s3://models/unsafe"), settings, s3_server.environ)
    finally:
        s3_server.client.delete_object(Bucket="models", Key=key)


def test_a_file_that_is_also_a_folder(s3_server: Any, settings: CacheSettings) -> None:
    for key in ("twice/a", "twice/a/b"):
        s3_server.client.put_object(Bucket="models", Key=key, Body=b"")
    with pytest.raises(SourceError, match="a is there twice"):
        resolve(parse("s3://models/twice"), settings, s3_server.environ)


@pytest.fixture
def with_keys_only(s3_server: Any) -> Iterator[None]:
    """Have the store look at credentials, until it has seen the test."""
    _look_at_credentials(s3_server.url, "0")
    yield
    _look_at_credentials(s3_server.url, "inf")


def _look_at_credentials(url: str, after: str) -> None:
    plain = {"Content-Type": "text/plain"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", after.encode(), plain)):
        pass


@pytest.mark.usefixtures("with_keys_only")
def test_refused_credentials(place: str, s3_server: Any, settings: CacheSettings) -> None:
    with pytest.raises(SourceDenied, match=r"refuses the credentials \(InvalidAccessKeyId\): see AWS_ACCESS_KEY_ID"):
        resolve(parse(place), settings, s3_server.environ)


def test_no_credentials(
    place: str, s3_server: Any, settings: CacheSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    environ = {
        "AWS_ENDPOINT_URL": s3_server.url,
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    with pytest.raises(SourceDenied, match=r"no credentials .*AWS_ACCESS_KEY_ID and .*AWS_PROFILE, ~/.aws"):
        resolve(parse(place), settings, environ)
    with pytest.raises(SourceDenied, match=r"no credentials \(The config profile \(team\) could not be found\)"):
        resolve(parse(place), settings, environ | {"AWS_PROFILE": "team"})


def test_a_profile(
    place: str, s3_server: Any, settings: CacheSettings, content: dict[str, bytes], fetch: Fetch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = a\naws_secret_access_key = b\n")
    (tmp_path / "config").write_text(f"[profile team]\nregion = eu-north-1\nendpoint_url = {s3_server.url}\n")
    environ = {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "team",
    }
    assert fetch(resolve(parse(place), settings, environ)) == content


def test_mlflows_names_for_the_endpoint(place: str, s3_server: Any, settings: CacheSettings, fetch: Fetch) -> None:
    environ = s3_server.environ | {"MLFLOW_S3_ENDPOINT_URL": s3_server.url, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert fetch(resolve(parse(place), settings, environ))


def test_a_store_that_is_down(place: str, s3_server: Any, hasty: CacheSettings, free_port: int) -> None:
    environ = s3_server.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}"}
    with pytest.raises(SourceUnavailable, match=f"no connection to http://127.0.0.1:{free_port}"):
        resolve(parse(place), hasty, environ)


def test_a_hung_store(place: str, s3_server: Any, hasty: CacheSettings, hung: str) -> None:
    started_at = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"s3://models/team/churn: silent for 0.3 s"):
        resolve(parse(place), hasty, s3_server.environ | {"AWS_ENDPOINT_URL": hung})
    assert time.monotonic() - started_at < 10


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", SourceUnavailable),
        (503, "SlowDown", SourceUnavailable),
        (400, "ExpiredToken", SourceDenied),
        (403, "AccessDenied", SourceDenied),
        (400, "InvalidArgument", SourceError),
    ],
)
def test_what_a_store_may_answer(
    status: int, code: str, kind: type[SourceError], s3_server: Any, settings: CacheSettings, peer: Any
) -> None:
    def refuse(request: BaseHTTPRequestHandler) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    store = peer(refuse)
    with pytest.raises(SourceError, match=code) as caught:
        resolve(parse("s3://models/x"), settings, s3_server.environ | {"AWS_ENDPOINT_URL": store.url})
    assert type(caught.value) is kind
    assert len(store.requests) == 1


def test_a_broken_transfer(place: str, s3_server: Any, settings: CacheSettings, peer: Any) -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 10)

    store = resolve(parse(place), settings, s3_server.environ).store
    broken = resolve(parse(place), settings, s3_server.environ).store
    broken._environ = s3_server.environ | {"AWS_ENDPOINT_URL": peer(half).url}
    broken._made = None
    (file,) = [file for file in store.files() if file.name == "model.pkl"]
    with pytest.raises(SourceUnavailable, match="the transfer broke off"):
        list(broken.read(file, 0))

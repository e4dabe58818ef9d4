"""From a registry and a store, both real, through a proxy that breaks, to bundles in the cache."""

from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.linear_model import LinearRegression

from fairlead.bundle.build import BuildOptions
from fairlead.bundle.obtain import Obtained, Silent, look_up, obtain, obtain_model
from fairlead.bundle.read import open_bundle
from fairlead.config import CacheSettings
from fairlead.errors import BundleError, SourceDenied, SourceError, SourceUnavailable
from proxy import Proxy, proxy_to
from registry import STORE, MlflowServer, S3Server

OBTAIN = """
import os, sys
from fairlead.bundle.obtain import Silent, obtain_model
from fairlead.config import CacheSettings
from fairlead.errors import FairleadError
if len(sys.argv) > 3:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    sys.stdout.write(obtain_model(sys.argv[1], CacheSettings(directory=sys.argv[2]), os.environ, Silent()).source)
except FairleadError as error:
    sys.stdout.write(f"{type(error).__name__} {error}")
"""


class Steps(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.bundle.transfer._FIRST_PAUSE_S", 0.02)


@pytest.fixture(scope="module")
def s3_proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy_to(s3_server.url) as made:
        yield made


@pytest.fixture(scope="module")
def registry_proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    with proxy_to(mlflow_server.url) as made:
        yield made


@pytest.fixture
def s3(s3_server: S3Server, s3_proxy: Proxy) -> dict[str, str]:
    """Give the environment of a client whose way to S3 is the proxy."""
    s3_proxy.reset()
    return s3_server.environ | {"AWS_ENDPOINT_URL": s3_proxy.url}


@pytest.fixture
def registry(mlflow_server: MlflowServer, registry_proxy: Proxy, s3: dict[str, str]) -> dict[str, str]:
    """Give the environment of a client whose way to the registry is the proxy."""
    registry_proxy.reset()
    return mlflow_server.environ | s3 | {"MLFLOW_TRACKING_URI": registry_proxy.url}


@pytest.fixture
def settings(tmp_path: Path) -> CacheSettings:
    return CacheSettings(directory=str(tmp_path / "cache"), connect_timeout_s=2, read_timeout_s=3, timeout_s=120)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "price.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])))
    return path


@pytest.fixture
def put(s3_server: S3Server, tmp_path: Path) -> Callable[[Path], str]:
    """Give `put(directory)`, which puts it on S3 under its own name."""
    return lambda directory: s3_server.put(f"obtain/{tmp_path.name}/{directory.name}", directory)


def get(source: object, settings: CacheSettings, environ: dict[str, str], **how: Any) -> Obtained:
    return obtain(str(source), settings, environ, how.pop("progress", Silent()), **how)


def entries(settings: CacheSettings) -> list[Path]:
    return [path for path in (Path(str(settings.directory)) / "entries").iterdir() if path.is_dir()]


def test_a_bundle_on_s3_comes_once(put: Any, s3: Any, s3_proxy: Proxy, settings: Any, iris_bundle: Path) -> None:
    source = put(iris_bundle)
    first = get(source, settings, s3)
    assert open_bundle(first.path).digest == first.digest == open_bundle(iris_bundle).digest
    assert (first.name, first.is_bundle, first.warnings, first.stale) == ("iris", True, (), None)
    s3_proxy.reset()
    second = get(source, settings, s3)
    assert second.path == first.path
    assert len(s3_proxy.requests) == 1
    assert "list-type=2" in s3_proxy.requests[0]
    assert second.key == first.key == look_up(source, settings, s3)


def test_a_new_version_is_another_entry(
    put: Any, s3: Any, settings: Any, s3_server: S3Server, iris_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "churn").mkdir()
    source = put(iris_bundle)
    first = get(source, settings, s3)
    prefix = source.removeprefix(f"s3://{STORE}/")
    for entry in s3_server.client.list_objects_v2(Bucket=STORE, Prefix=prefix)["Contents"]:
        s3_server.client.delete_object(Bucket=STORE, Key=entry["Key"])
    other = tmp_path / iris_bundle.name
    built = get(first.path / "original" / next((first.path / "original").iterdir()).name, settings, s3)
    shutil.copytree(built.path, other)
    put(other)
    second = get(source, settings, s3)
    assert second.digest == built.digest != first.digest
    assert second.path != first.path
    open_bundle(first.path)


def test_a_registered_bundle_needs_one_question_the_second_time(
    registry: Any, registry_proxy: Proxy, s3_proxy: Proxy, mlflow_server: MlflowServer, settings: Any, iris_bundle: Path
) -> None:
    version = mlflow_server.register(iris_bundle, "obtain-iris", alias="champion")
    first = get("models:/obtain-iris@champion", settings, registry)
    assert (first.registry_version, first.digest) == (version, open_bundle(iris_bundle).digest)
    registry_proxy.reset()
    s3_proxy.reset()
    again = get("models:/obtain-iris@champion", settings, registry)
    assert again.path == first.path
    assert len(registry_proxy.requests) == 1
    assert s3_proxy.requests == []


@pytest.mark.parametrize("direct", [True, False])
def test_an_mlflow_model_is_built_under_its_registered_name_and_version(
    registry: Any,
    registry_proxy: Proxy,
    mlflow_server: MlflowServer,
    settings: Any,
    tmp_path: Path,
    model_file: Path,
    direct: bool,
) -> None:
    shutil.copyfile(model_file, tmp_path / "model.pkl")
    folder = tmp_path / "logged"
    folder.mkdir()
    shutil.copyfile(model_file, folder / "model.pkl")
    (folder / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n    sklearn_version: 1.7.0\n")
    name = f"obtain-price-{direct}"
    version = mlflow_server.register(folder, name, alias="champion", direct=direct)
    progress = Steps()
    first = get(f"models:/{name}@champion", settings, registry, progress=progress)
    assert (first.name, first.version, first.is_bundle) == (name, version, False)
    assert "build: load" in progress.steps
    registry_proxy.reset()
    progress = Steps()
    again = get(f"models:/{name}@champion", settings, registry, progress=progress)
    assert (again.path, again.digest) == (first.path, first.digest)
    assert progress.steps == [f"ask for models:/{name}@champion"]
    assert len(registry_proxy.requests) == 1


def test_a_registry_that_is_away_at_start(
    registry: Any, registry_proxy: Proxy, mlflow_server: MlflowServer, settings: Any, iris_bundle: Path
) -> None:
    source = "models:/obtain-away@champion"
    mlflow_server.register(iris_bundle, "obtain-away", alias="champion")
    first = get(source, settings, registry)
    for fault in ("reset", "stall"):
        registry_proxy.fail(fault)
        started = time.monotonic()
        offline = get(source, settings, registry)
        assert time.monotonic() - started < 30
        assert (offline.path, offline.key, offline.registry_version) == (first.path, first.key, "1")
        assert offline.stale is not None
        assert re.fullmatch(
            rf"{source}: version 1 from the cache, last confirmed \d+ seconds? ago, because of: .*", offline.warnings[0]
        )
    registry_proxy.fail("reset")
    with pytest.raises(SourceUnavailable):  # of which nothing was ever heard
        get("models:/obtain-away/1", settings, registry)
    registry_proxy.reset()
    assert get(source, settings, registry).stale is None
    with pytest.raises(SourceUnavailable):
        get(source, settings, registry | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})


def test_a_store_that_is_away_when_the_alias_has_moved(
    registry: Any, s3_proxy: Proxy, mlflow_server: MlflowServer, settings: Any, iris_bundle: Path, tmp_path: Path
) -> None:
    source = "models:/obtain-moved@champion"
    mlflow_server.register(iris_bundle, "obtain-moved", alias="champion", direct=True)
    first = get(source, settings, registry)
    mlflow_server.register(iris_bundle, "obtain-moved", alias="champion", direct=True)
    s3_proxy.fail("reset")
    stale = get(source, settings, registry)
    assert (stale.digest, stale.registry_version) == (first.digest, "1")
    assert stale.stale is not None
    s3_proxy.reset()
    assert get(source, settings, registry).registry_version == "2"


def test_what_is_refused_or_not_there_is_not_taken_from_the_cache(
    registry: Any, s3: Any, put: Any, mlflow_server: MlflowServer, settings: Any, iris_bundle: Path, s3_server: S3Server
) -> None:
    source = "models:/obtain-gone@champion"
    mlflow_server.register(iris_bundle, "obtain-gone", alias="champion")
    get(source, settings, registry)
    mlflow_server.call("DELETE", "registered-models/alias", name="obtain-gone", alias="champion")
    with pytest.raises(SourceError, match="champion") as error:
        get(source, settings, registry)
    assert not isinstance(error.value, SourceUnavailable)
    refused = denying()
    try:
        get_denied = registry | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{refused.server_address[1]}"}
        with pytest.raises(SourceDenied):
            get(source, settings, get_denied)
    finally:
        refused.shutdown()
        refused.server_close()


def denying() -> http.server.ThreadingHTTPServer:
    class Deny(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Deny)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_changed_entry_is_fetched_again_once(
    put: Any, s3: Any, s3_proxy: Proxy, settings: Any, iris_bundle: Path
) -> None:
    source = put(iris_bundle)
    first = get(source, settings, s3)
    data = bytearray((first.path / "trees.bin").read_bytes())
    data[-1] ^= 1
    (first.path / "trees.bin").write_bytes(data)
    assert get(source, settings, s3).digest == first.digest
    open_bundle(first.path)
    (first.path / "trees.bin").write_bytes(data)
    s3_proxy.fail("reset")
    with pytest.raises(SourceUnavailable):
        get(source, settings, s3)


def test_a_bundle_that_is_broken_in_its_store_is_refused(
    put: Any, s3: Any, settings: Any, iris_bundle: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(iris_bundle, broken)
    (broken / "trees.bin").write_bytes(b"x")
    source = put(broken)
    for _ in range(2):
        with pytest.raises(BundleError, match=f"{source}/trees.bin: changed since the bundle was built"):
            get(source, settings, s3)
    assert entries(settings) == []
    assert list((Path(str(settings.directory)) / "partial").iterdir()) == []


def test_what_is_no_model_is_told_by_its_source(put: Any, s3: Any, settings: Any, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("not a model")
    (notes / "b.txt").write_text("not a model")
    source = put(notes)
    with pytest.raises(SourceError, match=f"{source}: expected a model in one of these formats"):
        get(source, settings, s3)


def test_files_alone_are_brought_without_a_build(put: Any, s3: Any, settings: Any, model_file: Path) -> None:
    source = put(model_file.parent)
    for address in (source, f"{source}/{model_file.name}"):
        model = obtain_model(address, settings, s3, Silent())
        assert Path(model.source).name == model_file.name
        assert Path(model.source).read_bytes() == model_file.read_bytes()
    assert obtain_model(str(model_file), settings, s3, Silent()).source == str(model_file)
    assert get(source, settings, s3).name == model_file.parent.name


def test_an_archive_at_an_address(settings: Any, iris_bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "www" / "iris.tar.gz"
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(iris_bundle, "iris")
    handler = partial(Quiet, directory=packed.parent)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/iris.tar.gz#sha256="
        assert get(address + digest, settings, {}).digest == open_bundle(iris_bundle).digest
        with pytest.raises(SourceError, match="expected SHA-256 0000"):
            get(address + "0" * 64, settings, {})
        server.shutdown()
    assert get(address + digest, settings, {}).stale is None, "with its digest known there is nothing to ask"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def test_a_local_bundle_is_itself_and_a_pinned_one_does_not_change(
    settings: Any, iris_bundle: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(iris_bundle, mine)
    itself = get(mine, settings, {})
    assert (itself.path, itself.hold) == (mine, None)
    assert not Path(str(settings.directory)).exists()
    pinned = get(mine, settings, {}, pin=True)
    assert pinned.path != mine
    assert pinned.key == itself.key == look_up(str(mine), settings, {})
    assert get(mine, settings, {}, pin=True).path == pinned.path
    (mine / "trees.bin").write_bytes(b"x")
    assert look_up(str(mine), settings, {}) != pinned.key
    assert open_bundle(pinned.path).digest == pinned.digest
    with pytest.raises(BundleError, match=r"trees\.bin: changed"):
        get(mine, settings, {}, pin=True)


def test_a_local_model_is_built_once_for_what_is_in_it(settings: Any, model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "price.pkl"
    shutil.copyfile(model_file, path)
    first = get(path, settings, {})
    assert (first.name, first.is_bundle) == ("price", False)
    os.utime(path, (1, 1))
    progress = Steps()
    assert get(path, settings, {}, progress=progress).path == first.path
    assert progress.steps == []
    assert get(path, settings, {}, build=BuildOptions(name="other")).name == "other"
    path.write_bytes(pickle.dumps(LinearRegression().fit([[1.0], [2.0]], [1.0, 3.0])))
    assert get(path, settings, {}).digest != first.digest


def test_a_class_is_built_once_for_its_module(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "rules_of_obtain.py"
    module.write_text("class Rules:\n    def predict(self, size: float) -> float:\n        return size\n")
    first = get("rules_of_obtain:Rules", settings, {})
    assert first.name == "Rules"
    assert get("rules_of_obtain:Rules", settings, {}).path == first.path
    module.write_text(module.read_text() + "\n")
    assert get("rules_of_obtain:Rules", settings, {}).path != first.path
    with pytest.raises(SourceError, match="no module of that name"):
        get("nowhere_to_be_found:Rules", settings, {})


@pytest.mark.parametrize("name", ["", "missing"])
def test_what_is_no_bundle_here_says_how_to_make_one(settings: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="make one with `fairlead build SOURCE"):
        get(tmp_path / name, settings, {})


@pytest.fixture
def large(put: Any, tmp_path: Path) -> str:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.bin").write_bytes(os.urandom(4_000_000))
    (folder / "MLmodel").write_text("flavors: {}\n")
    return str(put(folder))


def command(source: str, settings: CacheSettings, *more: str) -> list[str]:
    return [sys.executable, "-c", OBTAIN, source, str(settings.directory), *more]


def test_two_processes_fetch_once(large: str, s3: Any, s3_proxy: Proxy, settings: Any) -> None:
    s3_proxy.slow(8_000_000)
    environ = os.environ | s3
    both = [subprocess.Popen(command(large, settings), env=environ, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    outs = {process.communicate(timeout=60)[0] for process in both}
    assert len(outs) == 1
    assert Path(outs.pop()).is_dir()
    assert sum("model.bin" in request for request in s3_proxy.requests) == 1


def test_a_process_killed_in_the_middle_is_taken_over_from(large: str, s3: Any, s3_proxy: Proxy, settings: Any) -> None:
    s3_proxy.slow(2_000_000)
    with subprocess.Popen(command(large, settings), env=os.environ | s3, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while s3_proxy.answered_bytes < 2_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert entries(settings) == []
    s3_proxy.reset()
    model = obtain_model(large, settings, s3, Silent())
    assert (Path(model.source) / "model.bin").stat().st_size == 4_000_000
    assert s3_proxy.answered_bytes < 3_000_000


def test_a_full_disk_is_told_and_leaves_nothing(large: str, s3: Any, settings: Any) -> None:
    done = subprocess.run(
        command(large, settings, "1000000"), env=os.environ | s3, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("CacheFull "), done.stdout + done.stderr
    assert "no space left" in done.stdout
    assert list((Path(str(settings.directory)) / "partial").iterdir()) == []
    assert entries(settings) == []


def test_eviction_spares_what_is_served(put: Any, s3: Any, settings: Any, iris_bundle: Path, large: str) -> None:
    small = msgspec.structs.replace(settings, max_bytes=4_100_000)
    served = get(put(iris_bundle), small, s3)
    obtain_model(large, small, s3, Silent())
    assert open_bundle(served.path).digest == served.digest
    served.release()
    obtain_model(f"{large}/model.bin", msgspec.structs.replace(settings, max_bytes=1), s3, Silent())
    assert not served.path.exists()

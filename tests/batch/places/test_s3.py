"""Objects on a real S3 server, through a proxy that breaks transfers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch.places.place import Stamp
from fairlead.batch.places.s3 import S3Place
from fairlead.errors import InputError, MissingExtra, OutputError
from proxy import Proxy, proxy_to
from registry import S3Server, hand_on

BIG = os.urandom(9_000_000)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_PATIENCE_S": 30.0, "_CONNECT_TIMEOUT_S": 2, "_READ_TIMEOUT_S": 1}.items():
        monkeypatch.setattr(f"fairlead.batch.places.objects.{name}", value)


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy_to(s3_server.url) as made:
        yield made


@pytest.fixture
def place(s3_server: S3Server, proxy: Proxy) -> S3Place:
    """Give S3 as it is through the proxy."""
    proxy.reset()
    return S3Place(s3_server.environ | {"AWS_ENDPOINT_URL": proxy.url})


@pytest.fixture(scope="module")
def objects(s3_server: S3Server) -> None:
    for key in ("b.csv", "a.csv", "2026/01/c.csv", "2026/02/d.jsonl", "_rejects/a.csv", ".x/y.csv", "2026/_e.csv"):
        s3_server.client.put_object(Bucket="models", Key=f"batch/data/{key}", Body=key.encode())
    s3_server.client.put_object(Bucket="models", Key="batch/data/2026/", Body=b"")
    s3_server.client.put_object(Bucket="models", Key="batch/database.csv", Body=b"")
    s3_server.client.put_object(Bucket="models", Key="batch/slashes//a.csv", Body=b"")
    s3_server.client.put_object(Bucket="models", Key="batch/up/../a.csv", Body=b"")
    s3_server.client.put_object(Bucket="models", Key="batch/big", Body=BIG)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("data", ["2026/01/c.csv", "2026/02/d.jsonl", "a.csv", "b.csv"]),
        ("data/", ["2026/01/c.csv", "2026/02/d.jsonl", "a.csv", "b.csv"]),
        ("data/*.csv", ["a.csv", "b.csv"]),
        ("data/a*", ["a.csv"]),
        ("data/**/*.csv", ["2026/01/c.csv", "a.csv", "b.csv"]),
        ("data/2026/*/[cd]*", ["2026/01/c.csv", "2026/02/d.jsonl"]),
        ("da*a/a.csv", ["a.csv"]),
        ("data/a.csv", ["a.csv"]),
        ("data/_rejects/a.csv", ["_rejects/a.csv"]),
    ],
)
@pytest.mark.usefixtures("objects")
def test_finding_objects(pattern: str, found: list[str], place: S3Place) -> None:
    assert place.find(f"s3://models/batch/{pattern}") == [f"s3://models/batch/data/{name}" for name in found]


@pytest.mark.parametrize("pattern", ["dat", "data/*.parquet", "data/_*", "data/c.csv", "up/"])
@pytest.mark.usefixtures("objects")
def test_finding_nothing(pattern: str, place: S3Place) -> None:
    with pytest.raises(InputError, match="found none: see its name"):
        place.find(f"s3://models/batch/{pattern}")


@pytest.mark.usefixtures("objects")
def test_keys_that_are_no_paths(place: S3Place) -> None:
    with pytest.raises(InputError, match=r"slashes//a.csv: expected a key without //"):
        place.find("s3://models/batch/slashes/")
    for path in ("s3://", "s3:///a.csv", "s3://user:secret@models/a.csv", "s3://mod*/a.csv"):
        with pytest.raises(InputError, match="expected s3://BUCKET/KEY"):
            place.find(path)
    for path in ("s3://models", "s3://models/", "s3://models/a/"):
        with pytest.raises(OutputError, match="found no name of an object"):
            place.write(path)


@pytest.mark.usefixtures("objects")
def test_more_objects_than_a_page_lists(place: S3Place, proxy: Proxy) -> None:
    def two_a_page(params: dict[str, Any], **_: object) -> dict[str, Any]:
        return params | {"MaxKeys": 2}

    place._store._client().meta.events.register("provide-client-params.s3.ListObjectsV2", two_a_page)

    assert len(place.find("s3://models/batch/data/")) == 4
    assert proxy.count("GET /models?list-type=2") > 2


def test_stamps_and_small_objects(place: S3Place) -> None:
    path = "s3://models/batch/small"
    assert (place.stamp(path), place.get(path)) == (None, None)

    place.put(path, b"one")
    before = place.stamp(path)
    place.put(path, b"two")

    assert isinstance(before, Stamp)
    assert before.size_bytes == 3
    assert place.stamp(path) != before
    assert place.get(path) == b"two"
    place.delete(path)
    place.delete(path)
    assert place.get(path) is None


@pytest.mark.usefixtures("objects")
def test_reading_here_and_there(place: S3Place, proxy: Proxy) -> None:
    with place.open("s3://models/batch/big") as file:
        assert file.seek(0, os.SEEK_END) == len(BIG)
        assert file.read(10) == b""
        for start, count in (
            (0, 10),
            (8_999_990, 100),
            (4_194_300, 20),
            (100, 6_000_000),
            (5, 1),
            (4_000_000, 300_000),
        ):
            file.seek(start)
            assert file.read(count) == BIG[start : start + count]
        file.seek(0)
        assert file.read() == BIG
    assert proxy.count("GET /models/batch/big") < 10


@pytest.mark.usefixtures("objects")
def test_blocks_that_are_let_go(place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.places.objects._BLOCKS", 1)
    with place.open("s3://models/batch/big") as file:
        for start in (0, 8_500_000, 0, 4_500_000):
            file.seek(start)
            assert file.read(1000) == BIG[start : start + 1000]
        assert len(file.raw._blocks) == 1


def test_an_empty_object(place: S3Place) -> None:
    place.put("s3://models/batch/empty", b"")
    with place.open("s3://models/batch/empty") as file:
        assert file.read() == b""


def test_a_parquet_file_takes_tens_of_requests(place: S3Place, proxy: Proxy, tmp_path: Path) -> None:
    rows = 130_000
    table = pa.table({f"c{index}": pa.array(memoryview(os.urandom(rows * 8)).cast("d")) for index in range(20)})
    pq.write_table(table, tmp_path / "wide.parquet", row_group_size=20_000, compression=None, use_dictionary=False)
    data = (tmp_path / "wide.parquet").read_bytes()
    assert len(data) > 20_000_000
    place.put("s3://models/batch/wide.parquet", data)

    counts = []
    for options in ({"pre_buffer": True}, {"pre_buffer": False}, {"pre_buffer": False, "buffer_size": 65_536}):
        proxy.reset()
        with place.open("s3://models/batch/wide.parquet") as file:
            batches = pq.ParquetFile(file, **options).iter_batches(8192, use_threads=True)
            assert sum(batch.num_rows for batch in batches) == rows
        counts.append(proxy.count("GET /models/batch/wide.parquet"))
        assert proxy.answered_bytes < 1.5 * len(data)
    assert max(counts) < 40, counts


def test_an_object_that_changes_while_it_is_read(place: S3Place) -> None:
    path = "s3://models/batch/changing.parquet"
    with place.write(path) as draft:
        pq.write_table(pa.table({"a": range(2_000_000)}), draft.file, row_group_size=500_000, compression=None)
        draft.publish()
    with place.open(path) as file:
        batches = pq.ParquetFile(file, pre_buffer=False).iter_batches(1000)
        next(batches)
        place.put(path, b"another")
        # As it is, through pyarrow too.
        with pytest.raises(InputError, match=r"changing.parquet: it is not there, or changed since it was opened"):
            list(batches)
    place.delete(path)
    with pytest.raises(InputError, match="expected an object, found nothing"):
        place.open(path)


@pytest.mark.parametrize("size_bytes", [0, 1000, 40_000_000])
def test_writing(size_bytes: int, place: S3Place) -> None:
    path, data = f"s3://models/batch/out/{size_bytes}", os.urandom(size_bytes)

    with place.write(path) as draft:
        draft.file.write(data)
        assert place.stamp(path) is None
        draft.publish()

    assert place.get(path) == data


def test_what_is_left_without_publish_is_not_there(place: S3Place) -> None:
    with place.write("s3://models/batch/unpublished") as draft:
        draft.file.write(b"abc")

    assert place.stamp("s3://models/batch/unpublished") is None


@pytest.mark.parametrize("fault", ["truncate", "reset", "stall"])
@pytest.mark.usefixtures("objects")
def test_a_transfer_that_breaks_off_goes_on_where_it_was(fault: Any, place: S3Place, proxy: Proxy) -> None:
    with place.open("s3://models/batch/big") as file:
        proxy.fail(fault, 3_000_000, times=2)
        assert file.read() == BIG

    assert proxy.faults_left is not None
    assert proxy.faults_left <= 0
    # Nothing but what was on its way came twice.
    assert proxy.answered_bytes < len(BIG) + 1_000_000


def away(proxy: Proxy, seconds: float) -> threading.Timer:
    """Have the store give no answer for some seconds."""
    proxy.fail("truncate")
    back = threading.Timer(seconds, proxy.reset)
    back.start()
    return back


@pytest.mark.usefixtures("objects")
def test_a_store_that_is_away_for_a_while(place: S3Place, proxy: Proxy) -> None:
    with place.open("s3://models/batch/big") as file:
        back = away(proxy, 1)
        assert file.read() == BIG
        back.join()
    with place.write("s3://models/batch/out/away") as draft:
        draft.file.write(BIG * 2)
        back = away(proxy, 1)
        draft.publish()
        back.join()

    assert place.get("s3://models/batch/out/away") == BIG * 2


@pytest.mark.usefixtures("objects")
def test_a_store_that_stays_away(place: S3Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.places.objects._PATIENCE_S", 0.5)
    with place.open("s3://models/batch/big") as file:
        proxy.fail("truncate")
        with pytest.raises(InputError, match=r"s3://models/batch/big: the transfer broke off .* \(tried for 0.5 s\)"):
            file.read()
    for act in (place.find, place.stamp, place.get, place.open):
        with pytest.raises(InputError, match="s3://models/batch/big: "):
            act("s3://models/batch/big")
    with pytest.raises(OutputError, match="s3://models/batch/out/x: "):
        place.put("s3://models/batch/out/x", b"")


def test_an_upload_that_fails_leaves_no_parts(peer: Callable[..., Any], s3_server: S3Server) -> None:
    def refuse_parts(request: BaseHTTPRequestHandler) -> None:
        if "partNumber" not in request.path:
            return hand_on(request, s3_server.url)
        request.rfile.read(int(request.headers["Content-Length"]))
        body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
        request.send_response(403)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return None

    store = peer(refuse_parts)
    store.server.RequestHandlerClass.do_DELETE = store.server.RequestHandlerClass.do_GET
    place = S3Place(s3_server.environ | {"AWS_ENDPOINT_URL": store.url})
    path = "s3://models/batch/out/failing"
    with place.write(path) as draft:
        draft.file.write(BIG * 2)
        with pytest.raises(OutputError, match=r"failing: .* refuses the credentials"):
            draft.publish()

    assert [line.split(" ")[0] for line in store.requests] == ["POST", "PUT", "DELETE"]
    uploads = s3_server.client.list_multipart_uploads(Bucket="models").get("Uploads", [])
    assert "batch/out/failing" not in {upload["Key"] for upload in uploads}


def test_a_store_that_is_nowhere(free_port: int, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.places.objects._PATIENCE_S", 0.2)
    nowhere = S3Place(s3_server.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}"})

    started_at = time.monotonic()
    with pytest.raises(InputError, match=f"no connection to http://127.0.0.1:{free_port}: see whether"):
        nowhere.find("s3://models/batch/data/")
    assert time.monotonic() - started_at < 5


def test_what_is_wrong_is_not_tried_again(place: S3Place, s3_server: S3Server, tmp_path: Path) -> None:
    started_at = time.monotonic()
    with pytest.raises(InputError, match="no such bucket at "):
        place.find("s3://no-such-bucket/data/")
    with pytest.raises(OutputError, match="no such bucket at "):
        place.put("s3://no-such-bucket/data", b"")
    with pytest.raises(OutputError, match="no such bucket at "):
        place.delete("s3://no-such-bucket/data")
    none = {"AWS_ENDPOINT_URL": s3_server.url, "AWS_PROFILE": "none"}
    none |= {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    with pytest.raises(OutputError, match=r"no credentials .*: set AWS_ACCESS_KEY_ID"):
        S3Place(none).put("s3://models/batch/x", b"")
    assert time.monotonic() - started_at < 5


def test_a_store_that_serves_no_ranges(peer: Callable[..., Any], s3_server: S3Server) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "10")
        request.send_header("ETag", '"x"')
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(b"0123456789")

    store = peer(answer)
    store.server.RequestHandlerClass.do_HEAD = store.server.RequestHandlerClass.do_GET
    with S3Place(s3_server.environ | {"AWS_ENDPOINT_URL": store.url}).open("s3://models/x") as file:
        file.seek(3)
        with pytest.raises(InputError, match="the store must serve ranges"):
            file.read(2)


def test_no_room_for_the_temporary_file(s3_server: S3Server, tmp_path: Path) -> None:
    place = S3Place(s3_server.environ | {"TMPDIR": str(tmp_path / "none")})
    with pytest.raises(
        OutputError, match=r"s3://models/x, whose temporary file is in .*none \(TMPDIR\): cannot be writ"
    ):
        place.write("s3://models/x")


def test_without_boto3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"boto3 is not installed: run `pip install 'fairlead\[aws\]'`"):
        S3Place(s3_server.environ).find("s3://models/x")

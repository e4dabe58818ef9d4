"""Transfers from a real S3 server, through a proxy that breaks them."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fairlead.bundle import disk
from fairlead.bundle.sources import NoResume, RemoteFile, parse, resolve
from fairlead.bundle.sources.store import CHUNK_BYTES
from fairlead.bundle.transfer import LISTING, PARTS, Transferred, retried, transfer
from fairlead.config import CacheSettings
from fairlead.errors import CacheFull, SourceError, SourceUnavailable
from proxy import Proxy, proxy_to
from registry import S3Server

BIG = os.urandom(3_000_000)
FILES = {"model.bin": BIG, "MLmodel": b"flavors: {}\n", "code/features.py": b"x = 1\n", "empty": b""}
TOTAL = sum(map(len, FILES.values()))
# What answers have beside the files, and what a client had not yet handed on when the connection broke.
BROKEN_AT = 1_500_000
OVERHEAD_BYTES = 60_000 + CHUNK_BYTES
QUICK = CacheSettings(connect_timeout_s=2, read_timeout_s=1, timeout_s=60)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.bundle.transfer._FIRST_PAUSE_S", 0.02)


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy_to(s3_server.url) as made:
        yield made


@pytest.fixture
def put(s3_server: S3Server, proxy: Proxy, tmp_path: Path) -> Callable[..., str]:
    """Give `put(files)`, which puts files on S3 and gives their address."""
    proxy.reset()

    def go(files: dict[str, bytes]) -> str:
        for name, data in files.items():
            path = tmp_path / "put" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return s3_server.put(f"transfer/{tmp_path.name}", tmp_path / "put")

    return go


@pytest.fixture
def fetch(s3_server: S3Server, proxy: Proxy, tmp_path: Path) -> Callable[..., Transferred]:
    """Give `fetch(address)`, which brings the files through the proxy into `tmp_path/here/files`."""
    here = tmp_path / "here"
    here.mkdir()

    def go(address: str, settings: CacheSettings = QUICK, progress: Any = lambda done, total: None) -> Transferred:
        environ = s3_server.environ | {"AWS_ENDPOINT_URL": proxy.url}
        store = resolve(parse(address), settings, environ).store
        return transfer(store, here, "files", address, settings, progress)

    return go


def content(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_every_file_comes_whole_and_is_told(put: Any, fetch: Any, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    came = fetch(put(FILES), progress=lambda done, total: told.append((done, total)))
    assert content(tmp_path / "here" / "files") == FILES
    assert [(file.name, file.size_bytes, file.sha256) for file in came.files] == [
        (name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(FILES.items())
    ]
    assert not came.alone
    assert (told[0], told[-1]) == ((0, TOTAL), (TOTAL, TOTAL))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert not (tmp_path / "here" / PARTS).exists()


@pytest.mark.parametrize("fault", ["truncate", "reset", "stall"])
def test_a_broken_transfer_goes_on_from_where_it_broke(
    put: Any, fetch: Any, proxy: Proxy, tmp_path: Path, fault: Any
) -> None:
    address = put(FILES)
    proxy.fail(fault, BROKEN_AT, times=1)
    fetch(address)
    assert content(tmp_path / "here" / "files") == FILES
    assert proxy.count("GET") >= len(FILES) + 1
    # What had arrived does not come a second time; a reset drops what is on its way, all of it when the reader is slow.
    assert proxy.answered_bytes < TOTAL + OVERHEAD_BYTES + (BROKEN_AT if fault == "reset" else 0)


def test_breaks_that_each_bring_something_do_not_end_it(put: Any, fetch: Any, proxy: Proxy, tmp_path: Path) -> None:
    address = put(FILES)
    proxy.fail("truncate", 500_000, times=6)
    fetch(address)
    assert content(tmp_path / "here" / "files") == FILES
    assert proxy.answered_bytes < TOTAL + 6 * OVERHEAD_BYTES


@pytest.mark.parametrize("after_bytes", [0, 1_000_000])
def test_a_store_that_hangs_is_an_error_in_bounded_time(
    put: Any, fetch: Any, proxy: Proxy, tmp_path: Path, after_bytes: int
) -> None:
    address = put(FILES)
    started = time.monotonic()

    def hang(done: int, total: int | None) -> None:
        proxy.fail("stall", after_bytes if done < after_bytes else 0)

    with pytest.raises(SourceUnavailable, match=r"silent for 1 s") as error:
        fetch(address, progress=hang)
    assert time.monotonic() - started < 40
    assert error.value.retryable
    proxy.reset()
    fetch(address)
    assert content(tmp_path / "here" / "files") == FILES
    assert proxy.answered_bytes < TOTAL - after_bytes + OVERHEAD_BYTES


def test_the_whole_is_bounded_and_the_next_try_goes_on(put: Any, fetch: Any, proxy: Proxy, tmp_path: Path) -> None:
    address = put(FILES)
    proxy.slow(1_000_000)
    with pytest.raises(SourceUnavailable, match=r"not fetched within 1 s; .* of 2\.9 MiB are here and are kept"):
        fetch(address, CacheSettings(timeout_s=1))
    here = sum(part.stat().st_size for part in (tmp_path / "here" / PARTS).iterdir())
    assert here > 200_000
    proxy.reset()
    fetch(address)
    assert content(tmp_path / "here" / "files") == FILES
    assert proxy.answered_bytes < TOTAL - here + OVERHEAD_BYTES


def test_a_file_that_changed_between_tries_begins_anew(put: Any, fetch: Any, proxy: Proxy, tmp_path: Path) -> None:
    address = put(FILES)
    proxy.slow(1_000_000)
    with pytest.raises(SourceUnavailable):
        fetch(address, CacheSettings(timeout_s=1))
    proxy.reset()
    changed = FILES | {"model.bin": bytes(reversed(BIG)), "code/features.py": b"x = 2\n"}
    fetch(put(changed))
    assert content(tmp_path / "here" / "files") == changed


def test_what_the_store_no_longer_has_goes(put: Any, fetch: Any, s3_server: S3Server, tmp_path: Path) -> None:
    address = put(FILES | {"code/old/more.py": b"y"})
    fetch(address)
    s3_server.client.delete_object(Bucket="models", Key=f"{address.removeprefix('s3://models/')}/code/old/more.py")
    fetch(address)
    assert content(tmp_path / "here" / "files") == FILES
    assert not (tmp_path / "here" / "files" / "code" / "old").exists()


def test_a_broken_listing_of_an_earlier_try_is_no_listing(put: Any, fetch: Any, tmp_path: Path) -> None:
    (tmp_path / "here" / LISTING).write_bytes(b"\xff{")
    (tmp_path / "here" / PARTS).mkdir()
    (tmp_path / "here" / PARTS / "left").write_bytes(b"over")
    fetch(put(FILES))
    assert content(tmp_path / "here" / "files") == FILES


def test_one_file_of_s3_is_alone(put: Any, fetch: Any) -> None:
    address = put({"model.bin": BIG})
    assert fetch(f"{address}/model.bin").alone


class Memory:
    """A store in memory, which breaks off, and may be unable to begin in the middle."""

    def __init__(self, files: list[RemoteFile], data: bytes, breaks_at: list[int], resumes: bool = True) -> None:
        self.listed = files
        self.data = data
        self.breaks_at = breaks_at
        self.resumes = resumes
        self.starts: list[int] = []

    def files(self) -> list[RemoteFile]:
        return self.listed

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        self.starts.append(start)
        if start and not self.resumes:
            raise NoResume("from the start alone")
        end = self.breaks_at.pop(0) if self.breaks_at else None
        yield from (self.data[at : at + 10] for at in range(start, len(self.data) if end is None else end, 10))
        if end is not None:
            raise SourceUnavailable("broke off")


def bring(store: Memory, directory: Path, settings: CacheSettings = QUICK) -> Transferred:
    return transfer(store, directory, "files", "memory", settings, lambda done, total: None)


def test_a_store_that_begins_at_the_start_alone(tmp_path: Path) -> None:
    store = Memory([RemoteFile("model.bin", 100, "one")], b"x" * 100, [50], resumes=False)
    bring(store, tmp_path)
    assert store.starts == [0, 50, 0]
    assert content(tmp_path / "files") == {"model.bin": b"x" * 100}


def test_without_an_etag_nothing_is_put_together(tmp_path: Path) -> None:
    store = Memory([RemoteFile("model.bin", None)], b"x" * 100, [50])
    bring(store, tmp_path)
    assert store.starts == [0, 0]
    assert content(tmp_path / "files") == {"model.bin": b"x" * 100}


@pytest.mark.parametrize(("etag", "resumes"), [(None, True), ("one", False)])
def test_breaking_at_the_same_place_again_and_again_is_an_error(
    tmp_path: Path, etag: str | None, resumes: bool
) -> None:
    store = Memory([RemoteFile("model.bin", 100, etag)], b"x" * 100, [50] * 99, resumes=resumes)
    with pytest.raises(SourceUnavailable, match="broke off"):
        bring(store, tmp_path)
    assert len(store.starts) < 12


def test_a_wrong_digest_is_refused_and_removed_without_another_try(tmp_path: Path) -> None:
    promised = hashlib.sha256(b"y" * 100).hexdigest()
    store = Memory([RemoteFile("model.bin", 100, "one", promised)], b"x" * 100, [])
    with pytest.raises(SourceError, match=rf"expected SHA-256 {promised}, got .* was removed") as error:
        bring(store, tmp_path)
    assert not error.value.retryable
    assert store.starts == [0]
    assert list((tmp_path / PARTS).iterdir()) == []


def test_a_part_of_another_file_is_found_by_the_digest(tmp_path: Path) -> None:
    file = RemoteFile("model.bin", 100, "one", hashlib.sha256(b"x" * 100).hexdigest())
    with pytest.raises(SourceUnavailable):
        bring(Memory([file], b"y" * 100, [50, 50, 50, 50]), tmp_path)
    store = Memory([file], b"x" * 100, [])
    bring(store, tmp_path)
    assert store.starts == [50, 0]
    assert content(tmp_path / "files") == {"model.bin": b"x" * 100}


def test_a_file_larger_than_was_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected bytes 50, got 100"):
        bring(Memory([RemoteFile("model.bin", 50, "one")], b"x" * 100, []), tmp_path)


def test_what_broke_off_behind_the_last_byte_is_not_asked_for_again(tmp_path: Path) -> None:
    store = Memory([RemoteFile("model.bin", 100, "one")], b"x" * 100, [100], resumes=False)
    bring(store, tmp_path)
    assert store.starts == [0]


def test_what_does_not_fit_is_refused_before_a_byte_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=1024))
    store = Memory([RemoteFile("model.bin", 5 * 1024**3, "one")], b"", [])
    with pytest.raises(CacheFull, match=r"expected room for 5\.0 GiB, got 1\.0 KiB: free some, or name another"):
        bring(store, tmp_path)
    assert store.starts == []


def test_a_lookup_is_tried_again_but_not_for_ever() -> None:
    calls = []

    def fail() -> None:
        calls.append(time.monotonic())
        raise SourceUnavailable("away")

    with pytest.raises(SourceUnavailable):
        retried(fail, time.monotonic() + 60, 2)
    with pytest.raises(SourceUnavailable):
        retried(fail, time.monotonic() - 1, 2)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot be written to"), (errno.EIO, "cannot be used")],
)
def test_what_a_disk_refuses_is_told_with_its_cure(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(disk.CacheError, match=rf"{told}.*FAIRLEAD_CACHE_DIRECTORY"), disk.told(tmp_path):
        raise OSError(number, os.strerror(number))

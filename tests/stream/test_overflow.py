from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from fairlead.errors import BrokerUnavailable, ConfigError
from fairlead.stream.overflow import open_overflow
from registry import STORE, S3Server

DATA = b"too large" * 1000
DIGEST = sha256(DATA).hexdigest()


def test_the_same_bytes_are_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overflow = open_overflow("kept/here", {})
    assert not (tmp_path / "kept").exists()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(overflow.store, [DATA] * 20))
    assert {(one.at, one.size_bytes, one.sha256) for one in found} == {
        (str(tmp_path / "kept" / "here" / DIGEST), 9000, DIGEST)
    }
    assert [path.read_bytes() for path in (tmp_path / "kept" / "here").iterdir()] == [DATA]
    assert (tmp_path / "kept" / "here").stat().st_mode & 0o777 == 0o700


def test_a_place_that_cannot_be_written_may_be_mended(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file is here")
    overflow = open_overflow(str(tmp_path / "kept"), {})
    with pytest.raises(BrokerUnavailable, match=f"{tmp_path}/kept/{DIGEST}: what is too large cannot be kept"):
        overflow.store(DATA)
    (tmp_path / "kept").unlink()
    assert Path(overflow.store(DATA).at).read_bytes() == DATA


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", disk]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr}")
    try:
        overflow = open_overflow(str(disk), {})
        with pytest.raises(BrokerUnavailable, match="No space left on device"):
            overflow.store(DATA * 10)
        assert list(disk.iterdir()) == []
        assert Path(overflow.store(b"small").at).read_bytes() == b"small"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("prefix", ["", "/too/large/"])
def test_a_bucket_takes_them_too(s3_server: S3Server, prefix: str) -> None:
    stored = open_overflow(f"s3://{STORE}{prefix}", s3_server.environ).store(DATA)
    key = f"{prefix.strip('/')}/{DIGEST}".lstrip("/")
    assert (stored.at, stored.size_bytes, stored.sha256) == (f"s3://{STORE}/{key}", 9000, DIGEST)
    assert s3_server.client.get_object(Bucket=STORE, Key=key)["Body"].read() == DATA


def test_a_bucket_that_is_away_is_tried_again(s3_server: S3Server) -> None:
    with pytest.raises(BrokerUnavailable, match=f"s3://no-such-bucket/{DIGEST}: "):
        open_overflow("s3://no-such-bucket", s3_server.environ).store(DATA)


@pytest.mark.parametrize("text", ["https://me:secret@host/x", "s3://", "s3:///key", "gs://bucket/x"])
def test_no_other_place_is_taken(text: str) -> None:
    with pytest.raises(ConfigError, match="overflow: expected a directory or s3://BUCKET/PREFIX") as caught:
        open_overflow(text, {})
    assert "secret" not in str(caught.value)

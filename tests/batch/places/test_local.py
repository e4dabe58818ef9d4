"""Files on real disks: full ones, read-only ones, and those that others use too."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch.places.local import LocalPlace
from fairlead.batch.places.place import Stamp
from fairlead.errors import InputError, OutputError

PLACE = LocalPlace()
NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.csv", "a.csv", "2026/01/c.csv", "2026/02/d.jsonl", "_rejects/a.csv", ".x/y.csv", "2026/_e.csv"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("data", ["data/2026/01/c.csv", "data/2026/02/d.jsonl", "data/a.csv", "data/b.csv"]),
        ("data/", ["data/2026/01/c.csv", "data/2026/02/d.jsonl", "data/a.csv", "data/b.csv"]),
        ("./data/*.csv", ["./data/a.csv", "./data/b.csv"]),
        ("*/a.csv", ["data/a.csv"]),
        ("data/**/*.csv", ["data/2026/01/c.csv", "data/a.csv", "data/b.csv"]),
        ("data/2026/*/[cd]*", ["data/2026/01/c.csv", "data/2026/02/d.jsonl"]),
        ("data/a.csv", ["data/a.csv"]),
        ("data/_rejects/a.csv", ["data/_rejects/a.csv"]),
        ("data/_rejects/*", ["data/_rejects/a.csv"]),
    ],
)
def test_finding_files(pattern: str, found: list[str], tree: Path) -> None:
    assert PLACE.find(pattern) == found
    if not pattern.startswith("."):
        assert PLACE.find(f"{tree.parent}/{pattern}") == [f"{tree.parent}/{name}" for name in found]


@pytest.mark.parametrize(
    "pattern", ["data/*.parquet", "nowhere", "nowhere/*.csv", "data/a.csv/x", "data/_*", "data/a.csv/"]
)
def test_finding_nothing(pattern: str, tree: Path) -> None:
    with pytest.raises(InputError, match=r"found none: see its name.*; those that begin with _ or \. are left out"):
        PLACE.find(pattern)


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "2026" / "up").symlink_to(tree)
    (tree / "again").symlink_to(tree / "2026" / "01")
    (tree / "a-link.csv").symlink_to("a.csv")
    (tree / "nowhere.csv").symlink_to("none")
    os.mkfifo(tree / "pipe.csv")

    names = ["data/2026/01/c.csv", "data/a-link.csv", "data/a.csv", "data/again/c.csv", "data/b.csv"]
    assert PLACE.find("data/**/*.csv") == names


def test_a_file_whose_name_looks_like_a_glob(tree: Path) -> None:
    (tree / "a[1]*.csv").write_text("")

    assert PLACE.find("data/a[1]*.csv") == ["data/a[1]*.csv"]


def test_stamps(tree: Path) -> None:
    path = tree / "a.csv"
    status = path.stat()
    assert PLACE.stamp(str(path)) == Stamp(5, str(status.st_mtime_ns))
    assert PLACE.stamp(str(tree / "none")) is None
    assert PLACE.stamp(str(tree)) is None
    assert PLACE.stamp(str(path / "below")) is None

    os.utime(path, ns=(0, status.st_mtime_ns + 1))
    assert PLACE.stamp(str(path)) != Stamp(5, str(status.st_mtime_ns))


def test_reading(tree: Path) -> None:
    with PLACE.open("data/a.csv") as file:
        assert file.read() == b"a.csv"
        file.seek(2)
        assert file.read(3) == b"csv"


def test_what_cannot_be_read(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(InputError, match="expected a file, found nothing"):
        PLACE.open("data/none.csv")
    for name in ("data", "data/pipe"):
        with pytest.raises(InputError, match="expected a file, found something else"):
            PLACE.open(name)


def test_a_file_that_changes_while_it_is_read(tree: Path) -> None:
    path = tree / "big.parquet"
    pq.write_table(pa.table({"a": range(2_000_000)}), path, row_group_size=500_000, compression=None)
    with PLACE.open(str(path)) as file:
        batches = pq.ParquetFile(file, pre_buffer=False).iter_batches(1000)
        next(batches)
        with path.open("ab") as other:
            other.write(b"x")
        # As it is, through pyarrow too.
        with pytest.raises(InputError, match=r"big.parquet: changed while it was read: score it again"):
            list(batches)
        with pytest.raises(InputError, match="changed while it was read"):
            file.read()


def test_writing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "out.csv"

    with PLACE.write(str(path)) as draft:
        draft.file.write(b"abc")
        assert [child.name for child in path.parent.iterdir()] == [".out.csv.partial"]
        draft.publish()

    assert path.read_bytes() == b"abc"
    assert [child.name for child in path.parent.iterdir()] == ["out.csv"]
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


def test_what_is_left_without_publish_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"before")

    with PLACE.write(str(path)) as draft:
        draft.file.write(b"after")
        draft.file.flush()

    assert [child.name for child in tmp_path.iterdir()] == ["out.csv"]
    assert path.read_bytes() == b"before"


def test_a_writer_that_closes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"

    with PLACE.write(str(path)) as draft, io.TextIOWrapper(draft.file) as text:
        text.write("abc")
        text.close()
        draft.publish()

    assert path.read_bytes() == b"abc"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out.csv").symlink_to("there/real.csv")

    for data in (b"one", b"two"):
        PLACE.put(str(tmp_path / "out.csv"), data)

        assert (tmp_path / "out.csv").is_symlink()
        assert (tmp_path / "there" / "real.csv").read_bytes() == data


def test_small_files(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "small")
    assert PLACE.get(path) is None
    PLACE.put(path, b"1")
    PLACE.put(path, b"2")
    assert PLACE.get(path) == b"2"
    PLACE.delete(path)
    PLACE.delete(path)
    PLACE.delete(path + "/below")
    assert PLACE.get(path) is None


def test_two_runs_on_one_output(tmp_path: Path) -> None:
    path = str(tmp_path / "out.csv")
    with PLACE.write(path) as draft:
        draft.file.write(b"first")
        with pytest.raises(OutputError, match=r"out.csv: another run is writing .*out.csv: wait for it"):
            PLACE.write(path)
        draft.publish()
        # The first is done, though its block has not ended.
        PLACE.put(path, b"second")

    assert PLACE.get(path) == b"second"


def test_many_runs_on_one_output(tmp_path: Path) -> None:
    path = str(tmp_path / "out.csv")
    done: list[bytes] = []

    def run(data: bytes) -> None:
        for _ in range(50):
            try:
                PLACE.put(path, data)
            except OutputError as error:
                assert "another run is writing" in str(error)  # noqa: PT017  # one of two good ends
            else:
                done.append(data)

    threads = [threading.Thread(target=run, args=(bytes([65 + index]) * 10_000,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert PLACE.get(path) in set(done)
    assert [child.name for child in tmp_path.iterdir()] == ["out.csv"]


KILLED = """
import sys, time
from fairlead.batch.places.local import LocalPlace
with LocalPlace().write(sys.argv[1]) as draft:
    draft.file.write(b"x" * 5_000_000)
    print(flush=True)
    time.sleep(60)
"""


def test_the_leftover_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "out.csv")
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(OutputError, match="another run is writing"):
            PLACE.write(path)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / ".out.csv.partial").stat().st_size > 0

    PLACE.put(path, b"short")

    assert PLACE.get(path) == b"short"
    assert [child.name for child in tmp_path.iterdir()] == ["out.csv"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on a disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "out.parquet"
    table = pa.table({"a": range(1_000_000)})

    # As it is, through pyarrow too.
    with (
        pytest.raises(OutputError, match=r"out.parquet: no space left .*: free some and start again, with --resume"),
        PLACE.write(str(path)) as draft,
        pq.ParquetWriter(draft.file, table.schema, compression=None, use_dictionary=False) as writer,
    ):
        writer.write_table(table, row_group_size=10_000)

    assert list(small_disk.iterdir()) == []
    PLACE.put(str(path), b"what fits")


def test_a_disk_that_is_full_at_the_end(small_disk: Path) -> None:
    path = small_disk / "out.csv"
    (small_disk / "other").write_bytes(b"x" * 900_000)

    with pytest.raises(OutputError, match="no space left"):
        PLACE.put(str(path), b"x" * 500_000)

    assert [child.name for child in small_disk.iterdir()] == ["other"]


def test_a_disk_that_may_only_be_read(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(OutputError, match=r"cannot be written to \(Read-only file system\): allow this user to"):
        PLACE.write(str(small_disk / "out.csv"))
    with pytest.raises(OutputError, match="Read-only file system"):
        PLACE.write(str(small_disk / "new" / "out.csv"))


LIMITED = """
import resource, sys
from fairlead.batch.places.local import LocalPlace
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    LocalPlace().put(sys.argv[1], b"x" * 1_000_000)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_limit_of_the_size_of_files(tmp_path: Path) -> None:
    told = _told(LIMITED, tmp_path / "out.csv")

    assert told.startswith("OutputError")
    assert "no space left (File too large)" in told
    assert list(tmp_path.iterdir()) == []


AS_NOBODY = f"""
import os, sys
from fairlead.batch.places.local import LocalPlace
os.setgid({NOBODY}); os.setuid({NOBODY})
for act in (lambda p: p.put(sys.argv[1] + "/new.csv", b""), lambda p: p.put(sys.argv[1] + "/new/a.csv", b""),
            lambda p: p.delete(sys.argv[1] + "/a.csv"), lambda p: p.open(sys.argv[1] + "/a.csv"),
            lambda p: p.find(sys.argv[1]), lambda p: p.find(sys.argv[1] + "/**/*.csv"),
            lambda p: p.get(sys.argv[1] + "/a.csv"), lambda p: p.stamp(sys.argv[1] + "/closed/a.csv")):
    try:
        print(act(LocalPlace()))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_what_this_user_may_not_do(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tmp_path / "data"
    (folder / "closed").mkdir(parents=True)
    (folder / "a.csv").touch(0o600)
    (folder / "closed").chmod(0o700)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to(Path("/tmp")) and parent != Path("/tmp"):
            parent.chmod(0o755)

    *writes, opened, found, globbed, got, stamped = _told(AS_NOBODY, folder).splitlines()

    assert len(writes) == 3
    for told in writes:
        assert told.startswith("OutputError")
        assert "cannot be written to (Permission denied): allow this user" in told
    for told in (opened, got, found, globbed, stamped):
        assert told.startswith("InputError")
        assert "cannot be read (Permission denied): see its name, its rights" in told


def test_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.csv")

    for name in ("a.csv", "pipe.csv"):
        with pytest.raises(OutputError, match="expected a file or nothing, found something else: name another"):
            PLACE.write(str(tmp_path / name))
    with pytest.raises(OutputError, match="a file is in the way of its directory"):
        PLACE.write(str(tmp_path / "file" / "a.csv"))
    with pytest.raises(OutputError, match="a file is in the way of its directory"):
        PLACE.write(str(tmp_path / "file" / "b" / "a.csv"))
    with pytest.raises(OutputError, match=r"its name is too long .*, with \.NAME\.partial beside it"):
        PLACE.write(str(tmp_path / ("x" * 250)))
    with pytest.raises(OutputError, match="a directory is in the way"):
        PLACE.delete(str(tmp_path / "a.csv"))


def _told(script: str, path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _umask() -> int:
    was = os.umask(0)
    os.umask(was)
    return was

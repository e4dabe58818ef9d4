"""Entries of the cache, by many at once, on disks that refuse, and with processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from fairlead.bundle.cache import Cache, Entry, Record, Sighting, age_text, directory_of, folder_name
from fairlead.bundle.locks import try_lock
from fairlead.bundle.transfer import Arrived
from fairlead.config import CacheSettings
from fairlead.errors import BundleError, CacheError, CacheFull, SourceUnavailable

FILL = """
import sys, time
from pathlib import Path
from fairlead.bundle.cache import Cache, Record
from fairlead.bundle.transfer import Arrived
from fairlead.config import CacheSettings

def make(partial):
    (partial / "model").mkdir(exist_ok=True)
    (partial / "model" / "data").write_bytes(b"x" * 100)
    with open(sys.argv[2], "a") as made:
        made.write("made\\n")
    sys.stdout.write("making\\n")
    sys.stdout.flush()
    time.sleep(float(sys.argv[3]))
    return Record("key", "model", (Arrived("data", 100, "0"),))

cache = Cache(CacheSettings(directory=sys.argv[1]), {})
entry = cache.fill("key", make, lambda entry: None, lambda: None)
sys.stdout.write(str(entry.path) + "\\n")
"""


def sound(entry: Entry) -> None:
    """Find nothing wrong."""


def ignore() -> None:
    """Wait in silence."""


def maker(key: str, size: int = 100) -> Callable[[Path], Record]:
    def make(partial: Path) -> Record:
        (partial / "model").mkdir(exist_ok=True)
        (partial / "model" / "data").write_bytes(b"x" * size)
        return Record(key, "model", (Arrived("data", size, sha256(b"x" * size).hexdigest()),))

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(CacheSettings(directory=str(tmp_path / "cache"), max_bytes=3500), {})


def fill(cache: Cache, key: str, size: int = 100) -> Entry:
    return cache.fill(key, maker(key, size), sound, ignore)


def keys(cache: Cache, *names: str) -> list[str]:
    """Give the keys that are there, without keeping them there."""
    there = []
    for name in names:
        entry = cache.find(name)
        if entry is not None:
            there.append(name)
            entry.release()
    return there


def test_an_entry_is_made_once_and_found_again(cache: Cache) -> None:
    assert cache.find("a") is None
    entry = fill(cache, "a")
    assert (entry.path / "data").read_bytes() == b"x" * 100
    again = cache.fill("a", lambda partial: pytest.fail("it is there"), sound, ignore)
    found = cache.find("a")
    assert found is not None
    assert found.path == again.path == entry.path
    assert found.record.size_bytes == 100


def test_one_that_is_a_single_file(cache: Cache) -> None:
    def make(partial: Path) -> Record:
        return Record("a", "model", maker("a")(partial).files, alone=True)

    assert cache.fill("a", make, sound, ignore).path.read_bytes() == b"x" * 100


def test_threads_at_once_make_one(cache: Cache) -> None:
    made, waited, entries = [], [], []

    def make(partial: Path) -> Record:
        made.append(1)
        time.sleep(0.1)
        return maker("a")(partial)

    def work() -> None:
        entries.append(cache.fill("a", make, sound, lambda: waited.append(1)))

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(made), len(waited), len({entry.path for entry in entries})) == (1, 4, 1)


def test_processes_at_once_make_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL, tmp_path / "cache", tmp_path / "made", "0.3"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [process.communicate(timeout=60)[0].splitlines()[-1] for process in both]
    assert outs[0] == outs[1]
    assert (tmp_path / "made").read_text() == "made\n"


def test_what_a_killed_process_left_is_no_entry(tmp_path: Path, cache: Cache) -> None:
    command = [sys.executable, "-c", FILL, tmp_path / "cache", tmp_path / "made", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert cache.find("key") is None
    seen: list[list[Path]] = []

    def make(partial: Path) -> Record:
        seen.append(list(partial.rglob("data")))
        return maker("key")(partial)

    cache.fill("key", make, sound, ignore)
    assert len(seen[0]) == 1, "its work was not kept"
    assert keys(cache, "key") == ["key"]


def test_waiting_for_another_is_bounded(tmp_path: Path, cache: Cache) -> None:
    fill(cache, "a").release()
    impatient = Cache(CacheSettings(directory=str(tmp_path / "cache"), timeout_s=0.1), {})
    going, go_on = threading.Event(), threading.Event()

    def make(partial: Path) -> Record:
        going.set()
        go_on.wait(20)
        return maker("b")(partial)

    thread = threading.Thread(target=lambda: cache.fill("b", make, sound, ignore))
    thread.start()
    going.wait(20)
    try:
        with pytest.raises(SourceUnavailable, match=r"another process has been at the same model for 0\.1 s"):
            impatient.fill("b", make, sound, ignore)
        assert impatient.find("a") is not None
    finally:
        go_on.set()
        thread.join(20)


@pytest.mark.parametrize("breaks", ["short", "missing", "record", "check"])
def test_a_broken_entry_is_made_again(cache: Cache, breaks: str) -> None:
    entry = fill(cache, "a")
    data = entry.path / "data"
    record = entry.path.parent / ".record.json"
    if breaks == "short":
        data.write_bytes(b"x" * 99)
    elif breaks == "missing":
        data.unlink()
    elif breaks == "record":
        record.write_bytes(b"\xff")
    else:
        data.write_bytes(b"y" * 100)

    def check(entry: Entry) -> None:
        if (entry.path / "data").read_bytes() != b"x" * 100:
            raise BundleError("changed")

    again = cache.fill("a", maker("a"), check, ignore)
    assert (again.path / "data").read_bytes() == b"x" * 100
    assert keys(cache, "a") == ["a"]


def use(cache: Cache, key: str, at: float) -> Path:
    entry = fill(cache, key, 1000)
    os.utime(entry.path.parent / ".record.json", (at, at))
    entry.release()
    return entry.path


def test_the_least_recently_used_goes_first(cache: Cache) -> None:
    now = time.time()
    for place, key in enumerate("abc"):
        use(cache, key, now - 100 + place)
    assert keys(cache, "a") == ["a"]  # which uses it
    fill(cache, "d", 1000).release()
    assert keys(cache, "a", "b", "c", "d") == ["a", "c", "d"]


def test_what_is_in_use_is_not_evicted(cache: Cache, tmp_path: Path) -> None:
    held = fill(cache, "a", 2500)
    os.utime(held.path.parent / ".record.json", (1, 1))
    fill(cache, "b", 1000).release()
    fill(cache, "c", 1000).release()
    assert keys(cache, "a", "b", "c") == ["a", "c"]
    held.release()
    fill(cache, "d", 1000).release()
    assert keys(cache, "a", "c", "d") == ["c", "d"]
    left = {path.name[:32] for path in (tmp_path / "cache" / "locks").iterdir()}
    assert len(left) == 2, "locks of what is gone stay"


def test_the_newest_stays_though_it_is_too_large(cache: Cache) -> None:
    fill(cache, "a", 100).release()
    fill(cache, "b", 5000).release()
    cache.evict()
    assert keys(cache, "a", "b") == ["b"]


def test_what_dead_processes_left_goes_too(cache: Cache, tmp_path: Path) -> None:
    for name in ("0" * 32, ".gone-1"):
        left = tmp_path / "cache" / "partial" / name
        left.mkdir(parents=True)
        (left / "part").write_bytes(b"x" * 5000)
        os.utime(left, (1, 1))
    fill(cache, "a").release()
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    assert keys(cache, "a") == ["a"]


def test_what_another_process_is_making_is_not_evicted(cache: Cache, tmp_path: Path) -> None:
    fill(cache, "a").release()
    left = tmp_path / "cache" / "partial" / ("0" * 32)
    left.mkdir()
    (left / "part").write_bytes(b"x" * 5000)
    os.utime(left, (1, 1))
    lock = try_lock(tmp_path / "cache" / "locks" / f"{'0' * 32}.fill")
    fill(cache, "b").release()
    assert (left / "part").exists()
    assert lock is not None
    lock.release()


def test_a_full_disk_leaves_nothing_behind(cache: Cache, tmp_path: Path) -> None:
    def make(partial: Path) -> Record:
        maker("a")(partial)
        raise CacheFull("no space")

    with pytest.raises(CacheFull):
        cache.fill("a", make, sound, ignore)
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    assert cache.find("a") is None


def test_a_broken_transfer_leaves_its_work(cache: Cache, tmp_path: Path) -> None:
    def make(partial: Path) -> Record:
        maker("a")(partial)
        raise SourceUnavailable("broke off")

    with pytest.raises(SourceUnavailable):
        cache.fill("a", make, sound, ignore)
    assert len(list((tmp_path / "cache" / "partial").rglob("data"))) == 1


def test_a_cache_that_cannot_be_written_to_still_gives_what_it_has(cache: Cache, tmp_path: Path) -> None:
    fill(cache, "a").release()
    cache.remember("models:/a@b", Sighting("a", "a", None, 1.0))
    script = f"""
import os
from fairlead.bundle.cache import Cache, Sighting
from fairlead.config import CacheSettings
from fairlead.errors import CacheError
if os.geteuid() == 0:
    os.seteuid(65534)
cache = Cache(CacheSettings(directory={str(tmp_path / "cache")!r}), {{}})
entry = cache.find("a")
assert entry is not None and entry.hold is None
entry.release()
cache.remember("models:/a@b", Sighting("b", "b", None, 1.0))
assert cache.recall("models:/a@b").key == "a"
try:
    cache.fill("b", None, None, None)
except CacheError as error:
    print(error)
"""
    folders = [tmp_path / "cache", *(tmp_path / "cache").iterdir()]
    above = [parent for parent in tmp_path.parents if not parent.stat().st_mode & 0o001]
    for path in [*folders, *(tmp_path / "cache" / "locks").iterdir()]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with suppress(PermissionError):
        for path in [tmp_path, *above]:
            path.chmod(path.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    for path in folders:
        path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "cannot be written to" in done.stdout


def test_what_a_source_meant_is_remembered_by_where_it_was_asked(tmp_path: Path) -> None:
    settings = CacheSettings(directory=str(tmp_path))
    here = Cache(settings, {"MLFLOW_TRACKING_URI": "http://one:5000"})
    there = Cache(settings, {"MLFLOW_TRACKING_URI": "http://two:5000"})
    sighting = Sighting("key", "churn", "3", 1.5)
    here.remember("models:/churn@champion", sighting)
    assert here.recall("models:/churn@champion") == sighting
    assert there.recall("models:/churn@champion") is None
    assert here.recall("models:/churn@other") is None
    for file in (tmp_path / "seen").iterdir():
        file.write_bytes(b"{")
    assert here.recall("models:/churn@champion") is None


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert directory_of(CacheSettings(directory=str(tmp_path)), {}) == tmp_path
    assert directory_of(CacheSettings(), {"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/fairlead")
    assert directory_of(CacheSettings(), {"HOME": "/h"}) == Path("/h/.cache/fairlead")

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(CacheError, match="FAIRLEAD_CACHE_DIRECTORY"):
        directory_of(CacheSettings(), {})


@pytest.mark.parametrize(
    ("name", "folder"),
    [("churn", "churn"), ("my model/ü", "my-model-"), ("..", "model"), (".record.json", "record.json")],
)
def test_folder_names_are_names_of_models(name: str, folder: str) -> None:
    assert folder_name(name) == folder


@pytest.mark.parametrize(
    ("age_s", "told"),
    [
        (0.5, "0 seconds ago"),
        (61, "1 minute ago"),
        (7200, "2 hours ago"),
        (3 * 86400, "3 days ago"),
        (-5, "0 seconds ago"),
    ],
)
def test_ages_are_told_in_one_unit(age_s: float, told: str) -> None:
    assert age_text(time.time() - age_s) == told

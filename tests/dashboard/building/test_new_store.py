from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairlead.dashboard.building.new_store import check_target, new_store
from fairlead.dashboard.store import Store
from fairlead.errors import DashboardError

# Begins a store, says so, and waits to be killed.
HELD = """
import sys
from pathlib import Path
from fairlead.dashboard.building.new_store import new_store
with new_store(Path(sys.argv[1])) as partial:
    (partial / "explainer.pickle").write_bytes(b"half")
    print("begun", flush=True)
    sys.stdin.read()
"""


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@contextmanager
def builder(target: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HELD, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def old(survival_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(survival_store, tmp_path / "titanic.dash"))


def test_a_store_takes_the_place_of_another(old: Path) -> None:
    with new_store(old) as partial:
        (partial / "new").write_text("x")
        Store.open(old).verify()

    assert content(old) == {"new": b"x"}
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_an_error_leaves_the_old_one(old: Path) -> None:
    before = content(old)
    with pytest.raises(ZeroDivisionError), new_store(old) as partial:
        (partial / "new").write_text(str(1 / 0))

    assert content(old) == before
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_a_build_that_is_killed_leaves_the_old_one_and_nothing_for_the_next(old: Path) -> None:
    with builder(old) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    Store.open(old).verify()
    with new_store(old) as partial:
        (partial / "new").write_text("x")

    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_two_builds_at_once(old: Path) -> None:
    expected = "another process builds it now: wait for it, or name another with -o"
    with builder(old), pytest.raises(DashboardError, match=expected), new_store(old):
        pytest.fail("it was begun")
    with new_store(old.with_name("other.dash")) as partial:
        assert partial.is_dir()


def test_a_full_disk(old: Path) -> None:
    before = content(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(DashboardError, match="; what was there is as it was"), new_store(old) as partial:
            (partial / "explainer.pickle").write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert content(old) == before
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_a_directory_that_cannot_be_written_to() -> None:
    # Not even root may make a file there.
    with pytest.raises(DashboardError, match="its parent /sys cannot be written to"), new_store(Path("/sys/a.dash")):
        pytest.fail("it was begun")


def test_what_is_no_store_is_left_alone(old: Path, tmp_path: Path) -> None:
    check_target(old)
    (old / "bundle" / "notes.md").write_text("mine")
    check_target(old)  # a bundle's own check is done when it is opened
    (old / "notes.md").write_text("mine")
    with pytest.raises(DashboardError, match="no intact dashboard, so it is left alone"):
        check_target(old)
    (tmp_path / "file").touch()
    with pytest.raises(DashboardError, match="expected a directory for the dashboard"):
        check_target(tmp_path / "file")
    (tmp_path / "link").symlink_to(old)
    with pytest.raises(DashboardError, match="expected a directory"):
        check_target(tmp_path / "link")
    with pytest.raises(DashboardError, match=r"its parent .* does not exist"):
        check_target(tmp_path / "none" / "a.dash")
    (tmp_path / "empty.dash").mkdir()
    check_target(tmp_path / "empty.dash")


def test_what_a_killed_build_left_is_found_by_any_name(tmp_path: Path) -> None:
    left = tmp_path / ".a[1].dash.abc.partial"
    other = tmp_path / ".a1.dash.abc.partial"
    left.mkdir()
    other.mkdir()
    with new_store(tmp_path / "a[1].dash"):
        assert not left.exists()
        assert other.exists()

"""Locks between threads, and between processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fairlead.bundle.locks import try_lock, wait_lock
from fairlead.errors import CacheError

HOLD = """
import sys, time
from pathlib import Path
from fairlead.bundle.locks import try_lock
lock = try_lock(Path(sys.argv[1]))
sys.stdout.write("held\\n")
sys.stdout.flush()
time.sleep(60)
"""


def test_one_is_exclusive_and_many_share(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    one = try_lock(path)
    assert one is not None
    assert try_lock(path) is None
    assert try_lock(path, shared=True) is None
    one.release()
    one.release()
    shared = [try_lock(path, shared=True), try_lock(path, shared=True)]
    assert None not in shared
    assert try_lock(path) is None
    for lock in shared:
        assert lock is not None
        lock.release()
    with try_lock(path) or pytest.fail("it is free"):
        assert try_lock(path) is None
    assert wait_lock(path, 1, lambda: pytest.fail("nobody has it")) is not None


def test_waiting_is_told_and_bounded(tmp_path: Path) -> None:
    held, waits = try_lock(tmp_path / "lock"), []
    assert held is not None
    assert wait_lock(tmp_path / "lock", 0.1, lambda: waits.append(1)) is None
    assert waits == [1]
    threading.Timer(0.1, held.release).start()
    assert wait_lock(tmp_path / "lock", 10, lambda: waits.append(1)) is not None


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert try_lock(tmp_path / "lock") is None
        holder.kill()
        assert wait_lock(tmp_path / "lock", 10, lambda: None) is not None


def test_a_child_that_was_forked_does_not_keep_what_was_released(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    read, write = os.pipe()
    child = subprocess.Popen(["cat"], stdin=read, close_fds=False)
    os.close(read)
    lock.release()
    taken = try_lock(tmp_path / "lock")
    os.close(write)
    child.wait(10)
    assert taken is not None


def test_a_lock_whose_file_was_removed_excludes_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    old = try_lock(path)
    assert old is not None
    waiting: list[object] = []
    waiter = threading.Thread(target=lambda: waiting.append(wait_lock(path, 10, lambda: None)))
    waiter.start()
    time.sleep(0.05)
    path.unlink()
    new = try_lock(path)
    old.release()
    waiter.join(0.5)
    assert waiter.is_alive(), "two hold it"
    assert new is not None
    new.release()
    waiter.join(10)
    assert waiting != [None]


def test_where_there_can_be_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot be used"):
        try_lock(tmp_path / "missing" / "lock")

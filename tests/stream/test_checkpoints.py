from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream import checkpoints as module
from fairlead.stream.checkpoints import SqliteCheckpoints


def test_a_position_is_kept_for_each_group_and_partition(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "checkpoints.db"
    kept = SqliteCheckpoints(path)
    assert kept.get("one", "rides/0") is None
    kept.put("one", "rides/0", "17")
    kept.put("one", "rides/1", "4")
    kept.put("two", "rides/0", "9")
    kept.put("one", "rides/0", "18")
    kept.close()
    again = SqliteCheckpoints(path)
    assert [again.get("one", "rides/0"), again.get("one", "rides/1"), again.get("two", "rides/0")] == ["18", "4", "9"]
    again.close()


def test_copies_write_at_the_same_time(tmp_path: Path) -> None:
    copies = [SqliteCheckpoints(tmp_path / "checkpoints.db") for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: copies[n % 4].put("one", f"p{n % 8}", str(n)), range(80)))
    assert all(copies[0].get("one", f"p{n}") is not None for n in range(8))
    for one in copies:
        one.close()


OPENING = """
import os, sys
from pathlib import Path
from fairlead.stream.checkpoints import SqliteCheckpoints

failed = 0
for turn in range(60):
    reading, writing = os.pipe()
    copies = []
    for _ in range(5):
        if pid := os.fork():
            copies.append(pid)
            continue
        os.close(writing)
        os.read(reading, 1)  # until all are there
        SqliteCheckpoints(Path(sys.argv[1]) / f"{turn}.db").close()
        os._exit(0)
    os.close(writing)
    os.close(reading)
    failed += sum(os.waitpid(pid, 0)[1] != 0 for pid in copies)
print(failed)
"""


def test_copies_that_begin_at_the_same_time_make_one_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OPENING, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr[-2000:]


def test_a_file_that_another_one_holds_may_be_free_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_S", 0.05)
    kept = SqliteCheckpoints(tmp_path / "checkpoints.db")
    other = sqlite3.connect(tmp_path / "checkpoints.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable, match=r"checkpoints in .*checkpoints\.db: database is locked"):
        kept.put("one", "p", "1")
    other.execute("COMMIT")
    other.close()
    kept.put("one", "p", "1")
    kept.close()


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.db"
    wrong.write_text("not a database " * 100)
    (tmp_path / "folder.db").mkdir()
    for path in (wrong, tmp_path / "folder.db", wrong / "below.db"):
        with pytest.raises(BrokerError, match=f"checkpoints in {path}") as caught:
            SqliteCheckpoints(path)
        assert not isinstance(caught.value, BrokerUnavailable)

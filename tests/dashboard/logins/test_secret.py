"""The secret: from the environment or a file, which is made for its owner only; nothing weak or open is taken."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairlead.dashboard.logins import secret
from fairlead.errors import DashboardError

GOOD = "g" * 16 + "o" * 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hub.secret"


def written(file: Path, content: bytes, mode: int = 0o600) -> Path:
    file.write_bytes(content)
    file.chmod(mode)
    return file


def refusal(environ: dict[str, str], file: Path) -> str:
    with pytest.raises(DashboardError) as caught:
        secret.obtain(environ, file)
    return str(caught.value)


def test_a_missing_file_is_made_once_and_for_its_owner_only(file: Path) -> None:
    before = os.umask(0)
    try:
        made = secret.obtain({}, file)
    finally:
        os.umask(before)
    assert len(made) == 64
    assert secret.obtain({}, file) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert secret.obtain({}, file.with_name("other")) != made


def test_workers_that_make_it_at_once_have_the_same_one(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: secret.obtain({}, file), range(32)))) == 1
    assert list(file.parent.iterdir()) == [file]


def test_processes_that_make_it_at_once_have_the_same_one(file: Path) -> None:
    code = "import sys, pathlib; from fairlead.dashboard.logins import secret; "
    code += "print(secret.obtain({}, pathlib.Path(sys.argv[1])))"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert {process.communicate(timeout=60)[0].strip() for process in started} == {repr(secret.obtain({}, file))}


def test_the_variable_goes_over_the_file_and_makes_none(file: Path) -> None:
    assert secret.obtain({secret.VARIABLE: f" {GOOD}\n"}, file) == GOOD.encode()
    assert not file.exists()


@pytest.mark.parametrize("given", ["", " ", "short", "x" * 31, "y" * 31 + " "])
def test_a_short_variable_is_refused_although_there_is_a_file(given: str, file: Path) -> None:
    written(file, GOOD.encode())
    told = refusal({secret.VARIABLE: given}, file)
    assert told.startswith(
        f"{secret.VARIABLE}: expected a secret of at least 32 random bytes, got {len(given.strip())}"
    )
    assert not given.strip() or given.strip() not in told


@pytest.mark.parametrize("content", [b"", b"\n", b"half-writt", b" " * 64])
def test_an_empty_or_half_written_file_is_refused_and_left_as_it_is(content: bytes, file: Path) -> None:
    written(file, content)
    told = refusal({}, file)
    assert "expected a secret of at least 32 random bytes" in told
    assert str(file) in told
    assert "remove it" in told
    assert file.read_bytes() == content
    file.unlink()
    assert len(secret.obtain({}, file)) == 64


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666])
def test_a_file_that_all_may_open_is_refused(mode: int, file: Path) -> None:
    written(file, GOOD.encode(), mode)
    told = refusal({}, file)
    assert f"(mode {mode:o}): run `chmod o= {file}`" in told
    assert GOOD not in told
    file.chmod(mode & ~0o007)
    assert secret.obtain({}, file) == GOOD.encode()


def test_what_is_no_file_of_a_secret_is_refused(file: Path) -> None:
    assert "at most 4096 bytes, got more" in refusal({}, written(file, b"x" * 5000))
    file.unlink()
    file.mkdir()
    assert "expected a file with a secret, got no plain file" in refusal({}, file)
    file.rmdir()
    os.mkfifo(file, 0o600)
    assert "expected a file with a secret, got no plain file" in refusal({}, file)
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))
    assert "No such file" in refusal({}, file)


def test_a_place_where_it_cannot_be_made_is_told(tmp_path: Path) -> None:
    assert "expected a folder in which it can be made, got: No such file" in refusal({}, tmp_path / "no" / "secret")
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal({}, tmp_path / "file" / "secret")

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fairlead.dashboard.boards.trial import Tried, try_store
from fairlead.errors import DashboardError


def test_a_store_that_changed(survival_store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(survival_store, tmp_path / "a.dash"))
    (copy / "explainer.pickle").write_bytes(b"")

    with pytest.raises(DashboardError, match=r"does not work:\n  .*explainer\.pickle: changed since"):
        try_store(copy, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("os.kill(os.getpid(), 9)", "crashed its process with SIGKILL, maybe for want of memory, when it was tried"),
        ("print('oh', file=sys.stderr); os._exit(3)", "ended its process with code 3 when it was tried\n  oh"),
    ],
)
def test_a_process_that_crashes(last: str, expected: str, survival_store: Path, tmp_path: Path) -> None:
    # Python runs it before all else.
    (tmp_path / "sitecustomize.py").write_text(f"import os, sys\n{last}\n")
    with pytest.raises(DashboardError) as error:
        try_store(survival_store, environ={"PYTHONPATH": str(tmp_path)})

    assert expected in str(error.value)


def test_a_process_that_hangs(survival_store: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(DashboardError, match="did not come to an end of its trial in 1 s"):
        try_store(survival_store, environ={"PYTHONPATH": str(tmp_path)}, timeout_s=1)


def test_variables_of_this_process_stay(monkeypatch: pytest.MonkeyPatch, survival_store: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "said = os.environ['GIVEN'] + os.environ['HAD']\n"
        "sys.stdout.write('{\"callbacks\": 3, \"failed\": []}' if said == 'ab' else '')\n"
        "sys.stdout.flush()\nos._exit(0)\n"
    )
    monkeypatch.setenv("HAD", "b")

    assert try_store(survival_store, environ={"PYTHONPATH": str(tmp_path), "GIVEN": "a"}) == Tried(3)
    assert "GIVEN" not in os.environ

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fairlead.errors import MissingExtra
from fairlead.extras import require


def test_what_is_installed_is_imported() -> None:
    assert require("json", "build") is json


@pytest.mark.parametrize("module", ["no_such_library", "no_such_library.part", "json.no_such_part"])
def test_what_is_missing_names_its_cure(module: str) -> None:
    with pytest.raises(MissingExtra) as caught:
        require(module, "stream")
    assert str(caught.value) == f"{module} is not installed: run `pip install 'fairlead[stream]'`"


def test_a_broken_library_is_no_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("import no_such_dependency\n")
    (tmp_path / "raising_library.py").write_text("raise ImportError('no shared object')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("broken_library", "build")
    with pytest.raises(ImportError, match="no shared object"):
        require("raising_library", "build")
    assert "broken_library" not in sys.modules

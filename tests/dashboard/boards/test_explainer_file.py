from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlead.dashboard.boards import explainer_file


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    values = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    frame = pd.DataFrame({"a": np.arange(500.0), "b": ["x", "y"] * 250, "c": pd.Categorical(["u", "v"] * 250)})
    few = np.arange(4)
    told = SimpleNamespace(
        values=values, turned=values.T, every_second=values[::2], frame=frame, few=few, again=values, empty=np.empty(0)
    )
    explainer_file.dump(told, tmp_path / "file")
    loaded = explainer_file.load(tmp_path / "file")

    for name in ("values", "turned", "every_second", "few", "empty"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(told, name))
    pd.testing.assert_frame_equal(loaded.frame, frame)
    assert loaded.again is loaded.values
    assert loaded.values.ctypes.data % 64 == 0
    assert not loaded.values.flags.writeable


def mapping_of(array: Any) -> mmap.mmap:
    """Give what an array is a part of in the end."""
    while isinstance(array, np.ndarray):
        array = array.base
    found = memoryview(array).obj
    assert isinstance(found, mmap.mmap)
    return found


def test_one_mapping_serves_all_arrays(tmp_path: Path) -> None:
    explainer_file.dump([np.arange(1000) + number for number in range(300)], tmp_path / "file")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the kernel's list
    loaded = explainer_file.load(tmp_path / "file")

    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208 - the kernel's list
    assert len({id(mapping_of(array)) for array in loaded}) == 1
    assert (tmp_path / "file").stat().st_size < 300 * (8000 + 64 + 100)


@pytest.mark.parametrize("content", [b"half", b"\x80\x04K\x01." * 9])
def test_another_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Exception, match=r"expected an explainer|requires a buffer"):
        explainer_file.load(tmp_path / "file")

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch import resources


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 4), ("6400000 100000\n", 4), ("garbage", 4)],
)
def test_a_container_has_the_cores_that_it_is_given(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(resources, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert resources.core_count() == cores
    monkeypatch.setattr(resources, "_QUOTA", tmp_path / "none")
    assert resources.core_count() == 4


def test_memory_comes_from_jemalloc_where_it_is_there() -> None:
    code = "import pyarrow as pa; from fairlead.batch.resources import use_lean_memory; use_lean_memory(); "
    code += "print(pa.default_memory_pool().backend_name, pa.supported_memory_backends())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    backend, _, supported = done.stdout.partition(" ")
    assert backend == "jemalloc" or "jemalloc" not in supported


def test_a_run_does_without_pandas(compiled_bundle: Path, tmp_path: Path) -> None:
    code = "import pyarrow as pa; from fairlead.batch.resources import keep_pandas_out; keep_pandas_out(); import sys; "
    code += "print(pa.array([1, 2]).to_numpy().sum(), 'pandas' in sys.modules); import pandas; print(pandas.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False", "pandas"]
    pq.write_table(pa.table({"size": [1.0], "rooms": [2], "town": ["Delft"]}), tmp_path / "in.parquet")
    arguments = ["score", str(compiled_bundle), str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet")]
    code = "import sys; from fairlead.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pyarrow" in imported
    heavy = {"pandas", "sklearn", "scipy", "onnx", "mlflow", "prefect", "ray", "starlette", "uvicorn", "boto3", "rich"}
    assert imported & heavy == set()
